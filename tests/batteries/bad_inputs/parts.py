"""Tasks, engines, loggers, methods and turns."""

from __future__ import annotations

from collections.abc import Iterator

from batteries.bad_inputs.case import Case, overridden


def tasks() -> Iterator[Case]:
    for name, task, words in (
        ("unknown", "arithmetics", ("unknown task `arithmetics`. Did you mean `arithmetic`?",)),
        ("an unknown parameter", "arithmetic?term=3", ("unknown parameter `term`",)),
        ("a parameter twice", "arithmetic?terms=3&terms=4", ("'terms' is given twice",)),
        ("a parameter without a value", "arithmetic?terms", ("name?key=value",)),
        ("too few terms", "arithmetic?terms=1", ("`terms`",)),
        ("terms that are a text", "arithmetic?terms=three", ("`terms`",)),
        ("terms of 400 digits", f"arithmetic?terms={'9' * 400}", ("`terms`",)),
        ("too many rows", "arithmetic?train_size=1000000000000", ("`train_size`",)),
        ("a share above 1", "arithmetic?guess_share=1.5", ("`guess_share`",)),
        ("a share that is NaN", "arithmetic?guess_share=nan", ("`guess_share`",)),
        (
            "more held-out rows than there are",
            "arithmetic?terms=2&digits=1&train_size=10&held_out_size=300",
            ("held-out problems",),
        ),
        ("a share of sums", "sums?held_out_share=0", ("`held_out_share`",)),
        ("a boolean that is none", "sums?worked_example=maybe", ("`worked_example`",)),
        ("a gym task that is not there", "reasoning_gym:no_such_task", ("no_such_task",)),
        ("a file that is not there", "none.py:Mine", ("none.py",)),
    ):
        yield overridden(f"task: {name}", f"data.task={task}", words=words)
    yield overridden(
        "task: its file raises",
        "data.task=given.py:T",
        words=("RuntimeError: no",),
        files={"given.py": "raise RuntimeError('no')\n"},
    )
    yield overridden(
        "task: its construction raises",
        "data.task=given.py:T",
        words=("RuntimeError: no",),
        files={"given.py": "class T:\n    def __init__(self): raise RuntimeError('no')\n"},
    )
    yield overridden("task: it is none", "data.task=given.py:T", words=("not a task",), files={"given.py": "T = 3\n"})


def parts() -> Iterator[Case]:
    raising = {"given.py": "raise RuntimeError('no')\n"}
    for setting in ("method", "rollout.engine.name", "rollout.turns", "log.loggers"):
        yield overridden(
            f"part: the file of {setting} raises", f"{setting}=given.py:f", words=("RuntimeError: no",), files=raising
        )
        yield overridden(
            f"part: the file of {setting} is not there", f"{setting}=none.py:f", words=("there is no file",)
        )
    yield overridden("part: an unknown engine", "rollout.engine.name=vllm", words=("unknown engine `vllm`",))
    yield overridden("part: an engine that is a number", "rollout.engine.name=3", words=("rollout.engine.name",))
    yield overridden(
        "part: an engine that is none",
        "rollout.engine.name=given.py:f",
        words=("given.py:f",),
        files={"given.py": "f = 3\n"},
    )
    yield overridden(
        "part: an engine whose construction raises",
        "rollout.engine.name=given.py:f",
        words=("RuntimeError: no",),
        files={"given.py": "class f:\n    def __init__(self, *a, **k): raise RuntimeError('no')\n"},
    )
    yield overridden(
        "part: settings of the local engine", "rollout.engine.settings={a: 1}", words=("rollout.engine.settings",)
    )
    yield overridden(
        "part: turns that are no function",
        "rollout.turns=given.py:f",
        words=("given.py:f",),
        files={"given.py": "f = 3\n"},
    )
    yield overridden(
        "part: an unknown logger",
        "log.loggers=[tensorbord]",
        words=("unknown logger `tensorbord`. Did you mean `tensorboard`?",),
    )
    yield overridden("part: a logger without a name", "log.loggers=[{project: x}]", words=("a logger is a name",))
    yield overridden("part: a logger that is a number", "log.loggers=[3]", words=("a logger is a name",))
    yield overridden(
        "part: a logger's wrong setting",
        "log.loggers=[{name: tensorboard, color: red}]",
        words=("unknown setting `color`",),
    )
    yield overridden(
        "part: a method that is none", "method=given.py:f", words=("a method is a name",), files={"given.py": "f = 3\n"}
    )
    yield overridden(
        "part: a method whose class is abstract",
        "method=given.py:f",
        words=("`method`: f: Can't instantiate abstract class",),
        files={"given.py": "from sharpen.methods import Method\nclass f(Method):\n    name = 'mine'\n"},
    )
