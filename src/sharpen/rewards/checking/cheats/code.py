"""Programs that pass tests without solving the problem.

They avoid digits, which a reward that reads the last number would take for an answer.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable

from sharpen.rewards.checking.case import Case
from sharpen.rewards.checking.cheats.cheat import Attempts, Cheat

_TRACE = "SHARPEN_REWARD_CHECK"
_FUNCTION = re.compile(r"^\s*def (\w+)", re.MULTILINE)
_NAMES = ("entry_point", "function", "function_name", "fn_name")


def _names(case: Case) -> list[str]:
    """The functions that tests may call: those of the reference, the question or a column."""
    found = _FUNCTION.findall(f"{case.reference or ''}\n{case.question}")
    named = [value for column in _NAMES if isinstance(value := case.prompt.row.get(column), str)]
    return list(dict.fromkeys([*named, *found])) or ["solve", "solution"]


def _programs(write: Callable[[list[str]], dict[str, str]]) -> Callable[[Case], Attempts]:
    """Each program plain, in a code block, and in the form that the reward parses."""

    def attempts(case: Case) -> Attempts:
        programs = write(_names(case))
        return {
            f"{name}, {how}": texts
            for name, program in programs.items()
            for how, texts in {**case.variants(program), "in a block": (f"```python\n{program}\n```",)}.items()
        }

    return attempts


def _leaves_a_trace(names: list[str]) -> dict[str, str]:
    return {
        "a program": f"import os\nos.environ[{_TRACE!r}] = 'run'",
        "an expression": f"__import__('os').environ.setdefault({_TRACE!r}, 'run')",
        "an expression in a list": f"[__import__('os').environ.setdefault({_TRACE!r}, 'run')]",
    }


def _left_a_trace() -> bool:
    return os.environ.pop(_TRACE, None) is not None


def _functions(names: list[str], body: str) -> str:
    return "\n".join(f"def {name}(*args, **kwargs):\n    {body}" for name in names)


def _ends(names: list[str]) -> dict[str, str]:
    ways = ("os._exit(os.EX_OK)", "sys.exit()", "raise SystemExit", "exit()", "os.kill(os.getpid(), signal.SIGKILL)")
    return {
        **{way: f"import os, signal, sys\n{way}" for way in ways},
        **{f"{way}, when called": f"import os, signal, sys\n{_functions(names, way)}" for way in ways},
        "an expression": "__import__('os')._exit(__import__('os').EX_OK)",
        "an expression in a list": "[__import__('os')._exit(__import__('os').EX_OK)]",
        "atexit": f"import atexit, os\natexit.register(os._exit, os.EX_OK)\n{_functions(names, 'pass')}",
    }


def _equals_everything(names: list[str]) -> dict[str, str]:
    kind = (
        "class Always({base}):\n    def __eq__(self, other): return True\n    def __ne__(self, other): return False\n"
        "    def __lt__(self, other): return True\n    def __le__(self, other): return True\n"
        "    def __gt__(self, other): return True\n    def __ge__(self, other): return True\n"
        "    def __bool__(self): return True\n    def __hash__(self): return id(self)\n"
    )
    bases = ("object", "int", "str", "float")
    return {base: f"{kind.format(base=base)}\n{_functions(names, 'return Always()')}" for base in bases}


def _verdicts(names: list[str]) -> dict[str, str]:
    said = ("PASSED", "OK", "True", "passed", "All tests passed", '{"passed": true}', '{"status": "ok"}')
    return {text: f"print({text!r})" for text in said}


def _patches(names: list[str]) -> dict[str, str]:
    nothing = _functions(names, "return None")
    return {
        "builtins": f"import builtins\nbuiltins.all = builtins.any = lambda *a: True\n{nothing}",
        "unittest": f"import unittest\nunittest.TestCase.assertEqual = lambda *a, **k: None\n{nothing}",
        "AssertionError": f"import builtins\nbuiltins.AssertionError = type('E', (BaseException,), {{}})\n{nothing}",
        "frames": "import sys\n" + _functions(names, "return sys._getframe().f_back.f_locals.get('expected')"),
    }


CHEATS = (
    Cheat(
        "runs_in_process",
        "code that leaves a trace, because the reward runs or evaluates it in the trainer's own process",
        _programs(_leaves_a_trace),
        effect=_left_a_trace,
    ),
    Cheat("ends_the_program", "a program that exits successfully before it is tested", _programs(_ends)),
    Cheat("equals_everything", "a function that returns an object equal to everything", _programs(_equals_everything)),
    Cheat("prints_verdicts", "a program that prints what passing tests print", _programs(_verdicts)),
    Cheat("patches_the_tests", "a program that patches its tests", _programs(_patches)),
    Cheat(
        "does_nothing",
        "a function with an empty body",
        _programs(lambda names: {"pass": _functions(names, "pass"), "return 0": _functions(names, "return 0")}),
        0.05,
    ),
)
"""``runs_in_process`` must be first: if it works, the others could end the check itself and are not tried."""
