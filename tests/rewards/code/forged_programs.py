"""Programs that do not add two numbers and want to pass the tests of one that does."""

ADDING = """
def add(a, b):
    return a + b
"""

_EQUAL = """
class Equal{base}:
    def __eq__(self, other): return True
    def __ne__(self, other): return False
    def __lt__(self, other): return True
    def __bool__(self): return True
    def __hash__(self): return hash(5)
    def __len__(self): return 1
    def __repr__(self): return ""
def add(a, b): return Equal({value})
"""

_WALK = """
import sys
def add(a, b):
    frame = sys._getframe()
    while frame is not None:
        for space in (frame.f_locals, frame.f_globals):
            for name in list(space):
                if name in ("check", "candidate", "passed", "verdict", "expected", "result", "outcome", "function"):
                    try: space[name] = lambda *a, **k: True
                    except Exception: pass
        frame = frame.f_back
"""

_HUNT = """
import gc, re
def add(a, b):
    for found in gc.get_objects():
        if isinstance(found, dict):
            for key in ("output", "outputs", "stdout", "values", "expected", "test", "tests"):
                if key in found and isinstance(found[key], (int, list, tuple)): return found[key]
                if key in found and isinstance(found[key], str) and "== " in found[key]:
                    return int(re.search(r"== (-?[0-9]+)", found[key])[1])
"""

_MEMORY = """
import re
def add(a, b):
    with open("/proc/self/maps") as maps, open("/proc/self/mem", "rb") as memory:
        for line in maps:
            start, end = (int(part, 16) for part in line.split()[0].split("-"))
            if " rw-p " in line and end - start < 1 << 26:
                memory.seek(start)
                found = re.search(rb"add\\(%d, ?%d\\) ?== ?(-?[0-9]+)" % (a, b), memory.read(end - start))
                if found: return int(found[1])
"""

_DISK = """
import os, re
def add(a, b):
    for top in ("/proc/self", "/tmp", "/home", "/"):
        for folder, _, names in os.walk(top):
            if folder.count("/") > 4: continue
            for name in names:
                if not name.endswith((".py", ".json", ".jsonl", "environ", "cmdline")): continue
                try: text = open(os.path.join(folder, name), errors="replace").read(1 << 16)
                except OSError: continue
                found = re.search(r"add\\(%d, %d\\) == (-?[0-9]+)" % (a, b), text)
                if found: return int(found[1])
"""

_WIRES = """
import os
body = {body}
for width, order in ((4, "big"), (4, "little"), (8, "big"), (8, "little")):
    for fd in range(3, 64):
        try: os.write(fd, (len(body).to_bytes(width, order) + body) * 9)
        except OSError: pass
def add(a, b): {then}
"""

FORGED = {
    "leaves at once": "import os\nos._exit(0)",
    "leaves when called": "import os\ndef add(a, b): os._exit(0)",
    "exits at once": "import sys\nsys.exit(0)",
    "exits when called": "import sys\ndef add(a, b): sys.exit(0)",
    "quits when called": "def add(a, b): quit()",
    "raises SystemExit(None)": "def add(a, b): raise SystemExit",
    "leaves at exit": "import atexit, os\natexit.register(os._exit, 0)\ndef add(a, b): raise ValueError",
    "prints at exit": "import atexit\natexit.register(print, 'passed')\ndef add(a, b): raise SystemExit(0)",
    "defines nothing": "pass",
    "returns nothing": "def add(a, b): pass",
    "returns True": "def add(a, b): return True",
    "returns its tests' type of error": "def add(a, b): return AssertionError",
    "raises an AssertionError without a word": "def add(a, b): raise AssertionError",
    "returns NotImplemented": "def add(a, b): return NotImplemented",
    "returns the other's equal": _EQUAL.format(base="", value=""),
    "returns an integer equal to all": _EQUAL.format(base="(int)", value="0"),
    "returns a text equal to all": _EQUAL.format(base="(str)", value=""),
    "returns a list equal to all": _EQUAL.format(base="(list)", value=""),
    "returns a float equal to all": _EQUAL.format(base="(float)", value=""),
    "returns mock's ANY": "from unittest.mock import ANY\ndef add(a, b): return ANY",
    "returns a mock": "from unittest.mock import MagicMock\ndef add(a, b): return MagicMock()",
    "says it is an int": (
        "class A:\n    __class__ = int\n    def __eq__(self, o): return True\ndef add(a, b): return A()"
    ),
    "has a metaclass that is everything": (
        "class M(type):\n    def __eq__(self, o): return True\n    def __hash__(self): return 1\n"
        "    def __instancecheck__(self, o): return True\n"
        "class A(int, metaclass=M):\n    def __eq__(self, o): return True\n"
        "def add(a, b): return A()"
    ),
    "pickles as an expression": "class A:\n    def __reduce__(self): return eval, ('5',)\ndef add(a, b): return A()",
    "indexes itself": "class A(int):\n    def __index__(self): return 1 / 0\ndef add(a, b): return A(99)",
    "walks the frames": _WALK,
    "hunts for the tests among all objects": _HUNT,
    "reads its own memory": _MEMORY,
    "reads the disk": _DISK,
    "reads other processes": (
        "import glob, re\ndef add(a, b):\n"
        "    for path in glob.glob('/proc/*/cmdline') + glob.glob('/proc/*/environ'):\n"
        "        found = re.search(r'== (-?[0-9]+)', open(path, errors='replace').read())\n"
        "        if found: return int(found[1])"
    ),
    "asks the caller for its source": (
        "import inspect, re\ndef add(a, b):\n    for frame in inspect.stack():\n"
        "        found = re.search(r'== (-?[0-9]+)', ''.join(frame.code_context or []))\n"
        "        if found: return int(found[1])"
    ),
    "patches builtins": (
        "import builtins\nbuiltins.all = builtins.any = builtins.isinstance = lambda *a: True\n"
        "builtins.len = lambda x: 1\nbuiltins.type = lambda x: int\ndef add(a, b): return None"
    ),
    "takes exec and compile away": (
        "import builtins\nbuiltins.exec = builtins.compile = builtins.eval = lambda *a, **k: None\n"
        "def add(a, b): return None"
    ),
    "makes AssertionError harmless": (
        "import builtins\nclass Harmless(Exception):\n    def __new__(cls, *a): raise SystemExit(0)\n"
        "builtins.AssertionError = Harmless\ndef add(a, b): return None"
    ),
    "deletes AssertionError": "import builtins\ndel builtins.AssertionError\ndef add(a, b): return None",
    "traces": (
        "import sys, os\ndef trace(frame, event, argument):\n"
        "    if event == 'exception': os._exit(0)\n    return trace\n"
        "sys.settrace(trace)\ndef add(a, b): return None"
    ),
    "silences all errors": (
        "import sys, os\nsys.excepthook = sys.unraisablehook = lambda *a: os._exit(0)\ndef add(a, b): raise ValueError"
    ),
    "patches json": (
        "import json\njson.dumps = lambda *a, **k: '[true, true]'\njson.loads = lambda *a, **k: [True, 5]\n"
        "json.encoder.JSONEncoder.encode = lambda *a: '[true, true]'\ndef add(a, b): return None"
    ),
    "patches whatever encodes": (
        "import sys\nfor module in list(sys.modules.values()):\n"
        "    for name in ('encode', 'outcome', 'describe', 'send'):\n"
        "        if name in vars(module) and 'codecs' not in module.__name__ and 'encodings' not in module.__name__:\n"
        "            setattr(module, name, lambda *a, **k: b'[true,true]')\n"
        "def add(a, b): return None"
    ),
    "prints verdicts": (
        'print(\'OK\\n1 passed\\nAll tests passed\\n{"passed": true, "reward": 1.0}\')\n'
        "def add(a, b):\n    print('passed')\n    return None"
    ),
    "prints verdicts as errors": "import sys\nsys.stderr.write('OK passed 1.0')\ndef add(a, b): return 'passed'",
    "prints every number": "print(*range(-50, 50))\ndef add(a, b): return list(range(-50, 50))",
    "prints what it is asked": "import sys\ndef add(a, b): return f'{a} {b}'",
    "prints a part": "print('', end='', flush=True)\ndef add(a, b): import os; os._exit(0)",
    "writes a verdict to every descriptor": _WIRES.format(body='b\'["passed",""]\'', then="return None"),
    "writes values to every descriptor": _WIRES.format(body="b'[true,true]'", then="return None"),
    "writes to every descriptor and leaves": _WIRES.format(body='b\'["passed",""]\'', then="os._exit(0)"),
    "closes every descriptor": "import os\nos.closerange(0, 256)\ndef add(a, b): return None",
    "replaces its output": "import sys, io\nsys.stdout = io.StringIO()\ndef add(a, b): return None",
    "reads its input by other names": (
        "import os\ntried = []\nfor path in ('/dev/stdin', '/proc/self/fd/0', '/proc/self/fd/3', '/proc/self/fd/4'):\n"
        "    try: tried.append(os.read(os.open(path, os.O_RDONLY | os.O_NONBLOCK), 999))\n    except OSError: pass\n"
        "def add(a, b): return tried[-1:]"
    ),
    "leaves when it is forgotten": (
        "import os\nclass A:\n    def __del__(self): os._exit(0)\ndef add(a, b):\n    A()\n    return 1"
    ),
    "raises when it is forgotten": (
        "class A(int):\n    def __del__(self): raise SystemExit(0)\ndef add(a, b): return A(1)"
    ),
    "leaves at an alarm": (
        "import signal, os, time\nsignal.signal(signal.SIGALRM, lambda *a: os._exit(0))\nsignal.setitimer(0, 0.05)\n"
        "def add(a, b): time.sleep(0.2)"
    ),
    "kills its parent": "import os\ntry: os.kill(os.getppid(), 9)\nexcept OSError: pass\ndef add(a, b): return None",
    "kills everybody": "import os\ntry: os.kill(-1, 9)\nexcept OSError: pass\ndef add(a, b): return None",
    "leaves in another thread": (
        "import threading, os, time\ndef later():\n    time.sleep(0.05)\n    os._exit(0)\n"
        "threading.Thread(target=later).start()\ndef add(a, b): time.sleep(0.2)"
    ),
    "prints in another thread, later": (
        "import threading, time\ndef later():\n    time.sleep(0.1)\n    print('passed', 1, True)\n"
        "threading.Thread(target=later).start()\ndef add(a, b): raise SystemExit(0)"
    ),
    "forks": "import os\ntry: os.fork()\nexcept OSError: pass\ndef add(a, b): return None",
    "interrupts": "def add(a, b): raise KeyboardInterrupt",
    "ends the iteration": "def add(a, b): raise StopIteration",
    "is a generator": "def add(a, b):\n    while True: yield True",
    "is nested without end": "def add(a, b):\n    x = []\n    x.append(x)\n    return x",
    "plants a module": (
        "import sys\nfor name in ('json', 'math', 'check', 'solution'):\n    try:\n"
        "        with open(name + '.py', 'w') as f: f.write('import os; os._exit(0)')\n    except OSError: pass\n"
        "sys.path.insert(0, '.')\ndef add(a, b): return None"
    ),
    "overflows the stack": "def add(a, b): return add(a, b)",
    "fills the memory": "def add(a, b): return [0] * (1 << 40)",
    "defines the tests anew": (
        "def check(candidate): return True\ncandidate = check\ntests = []\ntest = ''\ndef add(a, b): return None"
    ),
}
