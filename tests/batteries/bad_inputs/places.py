"""Folders and disks that cannot be written, and commands that name nothing."""

from __future__ import annotations

from collections.abc import Iterator

from batteries.bad_inputs.case import Case, overridden


def folders() -> Iterator[Case]:
    yield overridden("folder: a file is in the way", "run=rows.jsonl", words=("rows.jsonl is a file",))
    yield overridden("folder: a part of the path is a file", "run=rows.jsonl/new", words=("rows.jsonl is a file",))
    yield overridden(
        "folder: a name that is too long", f"run=runs/{'a' * 300}", words=("cannot be written: File name too long",)
    )
    yield overridden(
        "folder: a path that is too long", f"run={'/'.join(['a' * 200] * 30)}", words=("File name too long",)
    )
    yield overridden(
        "folder: a dangling link", "run=link", words=("link",), make=lambda f: (f / "link").symlink_to("none")
    )
    yield overridden(
        "folder: a link to itself", "run=link/new", words=("link",), make=lambda f: (f / "link").symlink_to("link")
    )
    yield overridden("folder: a file system that takes no files", "run=/proc/new", words=("run: ", "cannot be written"))
    yield overridden(
        "folder: a link to the working directory",
        "run=link",
        words=("run: link is the working directory",),
        make=lambda f: (f / "link").symlink_to("."),
    )
    yield overridden(
        "folder: it holds a run",
        "run=runs/old",
        words=("already holds a run",),
        files={"runs/old/recipe.yaml": "", "runs/old/metrics.jsonl": '{"step": 1}\n'},
        begins=True,
    )
    yield overridden(
        "folder: a checkpoint is in it",
        "run=runs/old",
        words=("already holds a run",),
        files={"runs/old/checkpoints/step_000001/x": ""},
        begins=True,
    )
    yield Case("resume: no run", ("run", "--resume", "model"), ("not a run, it has no recipe.yaml",))
    yield Case("resume: not there", ("run", "--resume", "runs/none"), ("not a run",))
    yield Case("resume: with a recipe", ("run", "recipe.yaml", "--resume", "runs/none"), ("keeps the recipe",))
    yield Case(
        "resume: a damaged recipe",
        ("run", "--resume", "runs/old"),
        ("not a text in UTF-8",),
        files={"runs/old/recipe.yaml": b"\xff"},
        begins=True,
    )


def disks() -> Iterator[Case]:
    tmpfs = "mkdir -p runs && mount -t tmpfs -o size=SIZE tmpfs runs"
    full = tmpfs.replace("SIZE", "64k") + " && head -c 65536 /dev/zero > runs/full 2> /dev/null"
    read_only = tmpfs.replace("SIZE", "1m") + " && mount -o remount,ro runs"
    command = ("run", "recipe.yaml", "-q")
    yield Case("disk: full at the start", command, ("runs/new", "MiB free"), apart=True, before=full)
    yield Case(
        "disk: too small for a checkpoint",
        command,
        ("a checkpoint takes", "MiB free"),
        apart=True,
        before=tmpfs.replace("SIZE", "40k"),
    )
    yield Case("disk: read-only", command, ("run: ", "Read-only file system"), apart=True, before=read_only)
    yield Case(
        "disk: merging onto a full one",
        ("export", "model", "--to", "hf", "--out", "runs/out"),
        ("runs/out", "MiB free"),
        apart=True,
        before=full,
    )
    yield Case(
        "disk: a recipe onto a full one",
        ("init", "rows.jsonl", "--model", "model", "--out", "runs/new.yaml"),
        ("runs/new.yaml", "MiB free"),
        apart=True,
        before=full,
    )
    yield Case(
        "disk: the demo onto a full one",
        ("demo", "--quick", "--run", "runs/demo"),
        ("MiB free",),
        apart=True,
        before=full,
    )


def commands() -> Iterator[Case]:
    yield Case("command: eval of nothing", ("eval", "runs/none", "--task", "sums"), ("runs/none",))
    yield Case("command: chat with nothing", ("chat", "runs/none"), ("runs/none",))
    yield Case("command: merge of nothing", ("merge", "runs/none", "out"), ("runs/none",))
    yield Case("command: merge of what is no adapter", ("merge", "model", "out"), ("adapter",))
    yield Case("command: export of nothing", ("export", "runs/none", "--to", "hf"), ("runs/none",))
    yield Case(
        "command: a dry run of a bad recipe",
        ("run", "recipe.yaml", "--dry-run", "training.steps=0"),
        ("`training.steps`",),
    )
    yield Case("command: init of nothing", ("init", "none.jsonl", "--model", "model"), ("none.jsonl",))
    yield Case("command: data check of nothing", ("data", "check", "none.yaml"), ("none.yaml",))
    yield Case("command: reward check of nothing", ("reward", "check", "none.yaml"), ("none.yaml",))
    yield Case("command: an unknown one", ("trian",), ("trian",))
    yield Case("command: an unknown option", ("run", "recipe.yaml", "--fast"), ("--fast",))
    yield Case("command: no seeds", ("run", "recipe.yaml", "--seeds", "0"), ("--seeds",))
    yield Case(
        "command: two at once without seeds", ("run", "recipe.yaml", "--at-once", "2"), ("--at-once has no effect",)
    )
    yield Case("command: settings of nothing", ("settings", "nothing"), ("nothing",))
    yield Case(
        "command: a template's arguments that are no YAML",
        ("eval", "model", "--chat-template-kwargs", "{"),
        ("chat-template-kwargs",),
    )
