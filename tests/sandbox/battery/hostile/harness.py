"""Programs that turn against what runs them."""

from sharpen.sandbox.battery import attacks

ATTACKS = tuple(
    attacks(
        "the harness",
        r"""
#: rubbish as results
os.write(3, os.urandom(10000))

#: results nested very deep
body = b"[" * 100000
os.write(3, len(body).to_bytes(4, "big") + body)

#: every descriptor written to
for fd in range(3, 1024):
    try:
        os.write(fd, b"\x00\x00\x00\x02{}" * 100)
    except OSError:
        pass

#: descriptors exchanged
os.dup2(3, 1)
os.dup2(1, 3)
print("x" * 100000)

#: the end of the process replaced
os._exit = lambda code: None
sys.exit(0)

#: builtins replaced
import builtins
for name in ("open", "len", "isinstance", "print", "exec", "compile", "BaseException", "SystemExit", "getattr"):
    setattr(builtins, name, None)
raise ValueError

#: modules removed
sys.modules.clear()

#: an abort
os.abort()

#: a stack that overflows
sys.setrecursionlimit(10 ** 9)
import pickle
deep = []
for _ in range(10 ** 6):
    deep = [deep]
pickle.dumps(deep)

#: frames of its callers changed
def change(frame, to_fast=ctypes.pythonapi.PyFrame_LocalsToFast, wrap=ctypes.py_object, list=list, id=id):
    own = id(globals())
    while frame is not None:
        names = frame.f_locals
        if id(names) != own:
            for name in list(names):
                names[name] = None
            to_fast(wrap(frame), 1)
        frame = frame.f_back
change(sys._getframe().f_back)

#: a trace function on everything
def trace(frame, event, argument):
    raise ValueError("traced")
sys.settrace(trace)
sys.setprofile(trace)

#: an audit hook that raises
def hook(event, arguments):
    raise RuntimeError(event)
sys.addaudithook(hook)

#: an exit function that raises
import atexit
atexit.register(lambda: 1 / 0)

#: an exception that cannot be printed
class Silent(Exception):
    def __str__(self):
        raise self
    __repr__ = __str__
raise Silent

#: an exception with a hostile class
class Meta(type):
    def __getattribute__(cls, name):
        raise KeyError(name)
class Strange(Exception, metaclass=Meta):
    pass
raise Strange

#: an output stream that raises
class Stream:
    def write(self, text):
        raise OSError
    def flush(self):
        raise OSError
sys.stdout = sys.stderr = Stream()
print("x")

#: an exit code that is no number
sys.exit({"code": 0})

#: a signal to itself
import signal
os.kill(os.getpid(), signal.SIGTERM)
os.kill(os.getpid(), signal.SIGKILL)

#: source that is no text
exec(b"\xff\xfe\x00".decode("latin-1"))
""",
    )
)
