"""What a model, a reward, a data set or the name of a file says is shown, and no terminal obeys it."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sharpen.models.character_model import create_character_model

ESCAPES = "\x1b]0;a\x07\x1b[2J\x1b[5m\x9b1m\x08\r\x0e\x7f\u202e"
MARKUP = "[bold][/][red]$x_{$ [/nothing]"
HOSTILE = ESCAPES + MARKUP
NAME = HOSTILE.replace("/", "\u2215").replace("\r", "\x0b")
"""As the name of a file, which has no slash; a path with a carriage return is not valid in YAML's plain style."""

OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]")
OF_RICH = re.compile(r"\r|\x1b\[(?:(?!5m)[0-9;]*m|[0-9]*[AK]|\?25[lh])")
"""What rich writes by itself on a terminal: colours, but nothing that blinks, and the movements of its bars."""

# One process for all commands: each would import torch anew.
WALK = """
import json, os, sys
from sharpen.cli.app import main

for arguments in json.load(open(sys.argv[1])):
    stdin = os.pipe()
    os.write(stdin[1], (SAID + "\\n").encode())
    os.close(stdin[1])
    sys.stdin = os.fdopen(stdin[0])
    sys.argv = ["sharpen", *arguments]
    print(f"\\n== {arguments[:2]!r}", file=sys.__stderr__, flush=True)
    try:
        main()
    except SystemExit as end:
        print(f"exit code {end.code}", file=sys.__stderr__, flush=True)
    except Exception:
        sys.excepthook(*sys.exc_info())
        print("exit code 1", file=sys.__stderr__, flush=True)
sys.excepthook(RuntimeError, RuntimeError(SAID), None)
"""

REWARD = f"""
import logging
import warnings

HOSTILE = {HOSTILE!r}

def long(completion):
    warnings.warn(HOSTILE)
    logging.getLogger("mine").error("%s and %s", HOSTILE, completion)
    if completion.count("a") > 2:
        raise ValueError(HOSTILE + completion)
    return float("[" in completion)

def wrong(completion):
    return HOSTILE

class Broken(Exception):
    def __str__(self):
        return HOSTILE

def broken(completion):
    raise Broken
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hostile") / NAME
    folder.mkdir()
    alphabet = "".join(sorted({*HOSTILE, "a", "1"}))
    create_character_model(
        folder / "model", alphabet=alphabet, hidden=16, intermediate=32, layers=1, heads=2, context=256
    )
    (folder / "reward.py").write_text(REWARD)
    rows = [{"prompt": f"{HOSTILE}{i}", "answer": HOSTILE, HOSTILE: HOSTILE} for i in range(4)]
    for name in ("rows.jsonl", f"{NAME}.jsonl"):
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "broken.jsonl").write_text(json.dumps({"prompt": 1, HOSTILE: HOSTILE}) + "\n")
    recipe = {
        "run": str(folder / NAME),
        "model": str(folder / "model"),
        "method": {"name": "grpo", "group_size": 2},
        "data": {"train": str(folder / f"{NAME}.jsonl"), "held_out": str(folder / "rows.jsonl")},
        "reward": {"name": f"{folder / 'reward.py'}:long"},
        "rollout": {"max_new_tokens": 12, "max_reward_failures": 1.0},
        "training": {"steps": 2, "prompts_per_step": 2},
        "evaluation": {"every": 1, "n": 2, "k": [1, 2]},
        "checkpoint": {"every": 1},
    }
    (folder / "recipe.yaml").write_text(json.dumps(recipe))
    return folder


def commands(folder: Path) -> list[list[str]]:
    recipe, run, reward = str(folder / "recipe.yaml"), str(folder / NAME), str(folder / "reward.py")
    return [
        ["run", recipe, "--dry-run"],
        ["data", "check", recipe],
        ["reward", "check", recipe],
        ["reward", "check", recipe, f"reward={{name: {json.dumps(reward + ':broken')}}}"],
        ["run", recipe],
        ["run", recipe, f"run={json.dumps(run + '2')}", f"reward={{name: {json.dumps(reward + ':wrong')}}}"],
        ["run", recipe, "--seeds", "1", f"run={json.dumps(run + '3')}", "training.steps=1"],
        ["eval", run],
        ["eval", run, "--json"],
        ["eval", run, "--reward", json.dumps({"name": f"{reward}:wrong"})],
        ["chat", run],
        ["merge", run, str(folder / "merged")],
        ["export", run, "--to", "hf", "--out", str(folder / "exported")],
        ["init", str(folder / f"{NAME}.jsonl"), "--model", str(folder / "model"), "--out", str(folder / "first.yaml")],
        ["data", "check", recipe, f"data.train={json.dumps(str(folder / 'broken.jsonl'))}"],
        ["run", recipe, f"data.columns={json.dumps({'answer': HOSTILE + '2'})}"],
        ["run", recipe, f"{HOSTILE}=1"],
        ["run", recipe, f"method={json.dumps(HOSTILE)}"],
        ["run", str(folder / f"{NAME}.yaml")],
        ["chat", str(folder / f"{NAME}4")],
        ["settings", HOSTILE],
        ["methods", HOSTILE],
        ["run", recipe, f"--{HOSTILE}"],
        ["merge", run, "one", HOSTILE],
        [HOSTILE],
    ]


def walk(folder: Path, terminal: bool) -> str:
    """All that the commands wrote."""
    given = folder.parent / "commands.json"
    given.write_text(json.dumps(commands(folder)))
    program = folder.parent / "walk.py"
    program.write_text(f"SAID = {HOSTILE.replace(chr(13), '')!r}\n{WALK}")
    environment = {**os.environ, "COLUMNS": "120", "TERM": "xterm-256color"}
    call = [sys.executable, str(program), str(given)]
    if not terminal:
        done = subprocess.run(
            call, env={**environment, "NO_COLOR": "1"}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=600
        )
        return done.stdout.decode()
    ours, theirs = pty.openpty()
    process = subprocess.Popen(call, env=environment, stdout=theirs, stderr=theirs, stdin=subprocess.DEVNULL)
    os.close(theirs)
    written, ends_s = b"", time.monotonic() + 600
    try:
        while time.monotonic() < ends_s and select.select([ours], [], [], 60)[0]:
            written += os.read(ours, 1 << 16)
    except OSError:  # Linux's end of a terminal
        pass
    finally:
        os.close(ours)
        process.kill()
        process.wait()
    return written.decode()


def test_no_command_writes_what_a_terminal_obeys(folder: Path) -> None:
    text = walk(folder, terminal=False)
    assert [line for line in text.split("\n") if OBEYED.search(line)] == []
    codes = re.findall(r"^exit code (\S+)$", text, re.MULTILINE)
    assert len(codes) == len(commands(folder))
    # The checks and runs that are to work did: what is hostile is no error.
    assert [codes[i] for i in (0, 1, 4, 7, 8, 10, 12)] == ["0"] * 7
    # It is shown, and markup is none.
    assert r"\x1b]0;a\x07\x1b[2J" in text
    assert "[bold][/][red]$x_{$" in text
    assert "RuntimeError: " in text


def test_a_terminal_gets_only_the_colours_and_bars_of_rich(folder: Path) -> None:
    text = OF_RICH.sub("", walk(folder, terminal=True))
    assert [line for line in text.split("\n") if OBEYED.search(line)] == []
