"""`sharpen view` where it cannot begin: what the user is told."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sharpen.cli.app import app


def said(capsys_result: object) -> str:
    return " ".join(str(capsys_result).split())


def test_a_folder_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["view"])
    assert result.exit_code == 2
    assert "runs: there is no such folder; `sharpen view FOLDER` shows the runs in it" in said(result.output)


def test_escapes_in_the_name_of_a_folder_are_not_obeyed(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["view", str(tmp_path / "\x1b[2J\u202eevil")])
    assert result.exit_code == 2
    assert "\\x1b[2J\\u202eevil" in result.output
    assert not {"\x1b", "\u202e"} & {*result.output}


@pytest.mark.parametrize("package", ["fastapi", "uvicorn"])
def test_the_extra_that_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    for name in [name for name in sys.modules if name.startswith(("sharpen.serving.", package))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    result = CliRunner().invoke(app, ["view", str(tmp_path)])
    assert result.exit_code == 2
    assert f'`sharpen view` needs the package {package}: pip install "sharpen[view]"' in said(result.output)


def test_a_port_that_is_no_port(tmp_path: Path) -> None:
    assert CliRunner().invoke(app, ["view", str(tmp_path), "--port", "70000"]).exit_code == 2
