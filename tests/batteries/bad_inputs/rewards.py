"""Rewards that cannot be imported or called, and what a running one may do."""

from __future__ import annotations

from collections.abc import Iterator

from batteries.bad_inputs.case import Case, changed, overridden

_REWARD_FILES = {
    # What the file of a reward holds, and the words of the error.
    "a syntax error": ("x = 1\ndef f(completion)\n    return 1\n", ("SyntaxError", "line 2")),
    "a missing package": ("import no_such_package\n", ("No module named 'no_such_package'",)),
    "a name that a package lacks": ("from math import sinn\n", ("cannot import name 'sinn'",)),
    "a NameError": ("print(x)\n", ("NameError: name 'x' is not defined", "line 1")),
    "a ZeroDivisionError": ("a = 1\nb = a / 0\n", ("ZeroDivisionError", "line 2")),
    "a KeyError": ("import os\nos.environ['SHARPEN_NOT_THERE']\n", ("KeyError: 'SHARPEN_NOT_THERE'", "line 2")),
    "a file that it lacks": ("open('none.json')\n", ("FileNotFoundError", "none.json")),
    "an endless recursion": ("def g():\n    return g()\ng()\n", ("RecursionError", "line 2")),
    "a MemoryError": ("raise MemoryError\n", ("MemoryError",)),
    "an assertion": ("assert 1 == 2\n", ("AssertionError", "line 1")),
    "an exception of its own": ("class Mine(Exception): pass\nraise Mine('why')\n", ("Mine: why",)),
    "an exception that is no Exception": ("class Mine(BaseException): pass\nraise Mine('why')\n", ("Mine: why",)),
    "a GeneratorExit": ("raise GeneratorExit\n", ("GeneratorExit",)),
    "an exception whose text raises": (
        "class Mine(Exception):\n    def __str__(self): raise ValueError\nraise Mine\n",
        ("Mine", "its text cannot be made"),
    ),
    "an exception whose text recurses": (
        "class Mine(Exception):\n    def __str__(self): return str(self)\nraise Mine\n",
        ("Mine", "its text cannot be made"),
    ),
    "an exception whose text is no text": (
        "class Mine(Exception):\n    def __str__(self): return 3\nraise Mine\n",
        ("Mine", "its text cannot be made"),
    ),
    "an exception with a text of a million letters": (
        "raise ValueError('a' * 10**6)\n",
        ("ValueError: aaa", "more letters"),
    ),
    "a SystemExit": ("import sys\nsys.exit(7)\n", ("ends the program with SystemExit: 7",)),
    "an exit without a code": ("raise SystemExit\n", ("ends the program with SystemExit",)),
    "a null byte": ("x = 1\0\n", ("null bytes",)),
    "no function of that name": ("def g(completion): return 1.0\n", ("has no 'f'",)),
    "a number for a function": ("f = 3\n", ("is a int, not a function",)),
    "an object whose attributes raise": (
        "class Mine:\n    def __getattr__(self, name): raise RuntimeError('no')\nf = Mine()\n",
        ("f",),
    ),
    "a module whose attributes raise": ("def __getattr__(name): raise RuntimeError('no')\n", ("RuntimeError: no",)),
    "a signature that raises": (
        "class Mine:\n    @property\n    def __signature__(self): raise RuntimeError('no')\n"
        "    def __call__(self, completion): return 1.0\nf = Mine()\n",
        ("signature", "RuntimeError: no"),
    ),
    "a signature that is none": (
        "class Mine:\n    __signature__ = 3\n    def __call__(self, completion): return 1.0\nf = Mine()\n",
        ("signature",),
    ),
    "no argument": ("def f(): return 1.0\n", ("completion",)),
    "a column that no row has": ("def f(completion, colour): return 1.0\n", ("needs the column 'colour'",)),
    "a class whose construction raises": (
        "class f:\n    def __init__(self): raise RuntimeError('no')\n    def __call__(self, completion): return 1.0\n",
        ("RuntimeError: no",),
    ),
    "a class that needs settings": (
        "class f:\n    def __init__(self, a): pass\n    def __call__(self, completion): return 1.0\n",
        ("missing a required argument: 'a'",),
    ),
}


def rewards() -> Iterator[Case]:
    for name, (content, words) in _REWARD_FILES.items():
        yield changed(f"reward: {name}", {"reward": "given.py:f"}, *words, files={"given.py": content})
    yield changed("reward: not UTF-8", {"reward": "given.py:f"}, "SyntaxError", files={"given.py": b"x = '\xff'\n"})
    yield overridden("reward: no such file", "reward=none.py:f", words=("there is no file",))
    yield overridden("reward: no such module", "reward=no_such_module:f", words=("No module named 'no_such_module'",))
    yield overridden(
        "reward: a folder", "reward=model.py:f", words=("model.py",), make=lambda f: (f / "model.py").mkdir()
    )
    yield overridden("reward: no name of a function", "reward='given.py:'", words=("given.py",), files={"given.py": ""})
    yield overridden("reward: no name of a file", "reward=':f'", words=(":f",))
    yield overridden(
        "reward: an unknown setting",
        "reward={name: given.py:f, colour: red}",
        words=("colour",),
        files={"given.py": "def f(completion): return 1.0\n"},
    )


_RUNNING = {
    "NaN": ("return float('nan')", ("returned nan", "finite number")),
    "infinity": ("return float('inf')", ("returned inf", "finite number")),
    "a text": ("return 'good'", ("returned a str",)),
    "a list": ("return [1.0, 2.0]", ("returned a list",)),
    "a huge integer": ("return 10**400", ("f'", "returned")),
    "nothing": ("return None", ("applied to none",)),
    "an object whose repr raises": ("return Bad()", ("returned a Bad",)),
    "a number whose float raises": ("return BadFloat()", ("BadFloat",)),
    "an exception": ("raise ValueError('why')", ("failed for 8 of 8", "ValueError: why")),
    "an exception whose text raises": ("raise BadError", ("failed for 8 of 8", "BadError", "its text cannot be made")),
    "an exception with a text of a million letters": (
        "raise ValueError('a' * 10**6)",
        ("failed for 8 of 8", "ValueError: aaa"),
    ),
    "an exception with escape sequences": ("raise ValueError('\\x1b[2Jgone')", ("failed for 8 of 8", "gone")),
    "a recursion": ("return f(completion)", ("failed for 8 of 8", "RecursionError")),
    "an exit": ("raise SystemExit(7)", ("SystemExit",)),
    "an exception that is no Exception": ("raise BadBase", ("BadBase",)),
}
_BAD_CLASSES = """
class Bad:
    def __repr__(self): raise RuntimeError('no repr')
    __str__ = __repr__

class BadFloat(float):
    def __float__(self): raise RuntimeError('no float')
    def __repr__(self): raise RuntimeError('no repr')

class BadError(Exception):
    def __str__(self): raise RuntimeError('no text')
    __repr__ = __str__

class BadBase(BaseException): pass

"""


def running_rewards() -> Iterator[Case]:
    for name, (body, words) in _RUNNING.items():
        yield changed(
            f"running reward: {name}",
            {"reward": "given.py:f"},
            *words,
            files={"given.py": f"{_BAD_CLASSES}def f(completion):\n    {body}\n"},
            begins=True,
        )
    yield changed(
        "running reward: it hangs",
        {"reward": {"name": "given.py:f", "call": {"timeout_s": 0.2, "process": True}}},
        "failed for 8 of 8",
        "0.2",
        files={"given.py": "import time\ndef f(completion): time.sleep(1000)\n"},
        begins=True,
    )
    yield changed(
        "running reward: its process dies",
        {"reward": {"name": "given.py:f", "call": {"process": True}}},
        "failed for 8 of 8",
        files={"given.py": "import os\ndef f(completion): os._exit(3)\n"},
        begins=True,
    )
