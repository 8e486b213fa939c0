"""`sharpen sandbox check`, as a person uses it."""

import re
from functools import partial

import pytest
from typer.testing import CliRunner, Result

from sharpen.cli import sandbox as command
from sharpen.cli.app import app
from sharpen.sandbox.battery import PROGRAMS


def invoke(*arguments: str) -> Result:
    return CliRunner(env={"COLUMNS": "120"}).invoke(app, ["sandbox", "check", *arguments])


def test_the_command_names_what_got_through_and_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = tuple(attack for attack in PROGRAMS if attack.name in ("a file that anyone may read", "TCP"))
    monkeypatch.setattr(command, "check", partial(command.check, programs=chosen))

    held = invoke()
    assert held.exit_code == 0
    assert "2 programs, nothing got through." in held.output
    # Which of the two depends on the machine.
    assert re.search(r"^limits: (cgroups in /|rlimits, .*; no cgroups: .)", held.output, re.MULTILINE)

    open_to_all = invoke("--isolation", "none", "--unsafe")
    assert open_to_all.exit_code == 1
    assert "the secret came out of the program" in open_to_all.output
    assert "a connection: TCP" in open_to_all.output


def test_no_isolation_must_be_asked_for_by_name() -> None:
    refused = invoke("--isolation", "none")
    assert refused.exit_code == 2
    assert "--unsafe" in refused.output
