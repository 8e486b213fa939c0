import importlib.util
import time
from typing import Any

import pytest
from pydantic import ValidationError

from sharpen.rewards.code.extraction import as_completion
from sharpen.rewards.code.lint import CodeLint


@pytest.mark.parametrize(
    ("code", "findings"),
    [
        ("x = 1\n", 0),
        ("import os\n", 1),
        ("import os\nimport sys\n", 2),
        ("import os\n\n\ndef f(x):\n    return x == None\n", 2),
        ("print(y)\n", 1),
        ("import os  # noqa\n", 1),
        ("# ruff: noqa\nimport os\n", 1),
        ("# ruff: disable[F401]\nimport os\n# ruff: enable[F401]\n", 1),
        ("# flake8: noqa\nimport os\n", 1),
    ],
)
def test_each_finding_costs(code: str, findings: int) -> None:
    assert CodeLint()(as_completion(code)) == pytest.approx(1 - 0.1 * findings)
    assert CodeLint(cost=0.75)(as_completion(code)) == max(0.0, 1 - 0.75 * findings)


@pytest.mark.parametrize("code", ["def f(:", "(" * 50_000, "x = " + "-" * 100_000 + "1"])
def test_what_cannot_be_read_is_worth_nothing(code: str) -> None:
    assert CodeLint()(as_completion(code)) == 0.0


def test_many_findings_do_not_keep_this_process_busy() -> None:
    """One by one as JSON, they are 43 MB."""
    computed_s = time.process_time()
    assert CodeLint(cost=1e-6)(as_completion("a;" * 50_000)) == pytest.approx(1 - 1e-6 * 100_000, abs=1e-7)
    assert time.process_time() - computed_s < 0.3


def test_no_program_is_worth_nothing() -> None:
    assert CodeLint()("x = 1") == 0.0


def test_the_rules_are_a_setting() -> None:
    code = as_completion("import os\nl = 1\n")
    assert CodeLint(rules=("F401",), cost=0.5)(code) == 0.5
    assert CodeLint(rules=("E741",), cost=0.5)(code) == 0.5
    assert CodeLint(rules=("F401", "E7"), cost=0.5)(code) == 0.0
    assert CodeLint(rules=("W",))(code) == 1.0


def test_the_linter_reads_no_settings_from_anywhere(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ruff.toml").write_text('lint.ignore = ["F401"]\n')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RUFF_CONFIG", str(tmp_path / "ruff.toml"))
    assert CodeLint(cost=0.5)(as_completion("import os\n")) == 0.5


@pytest.mark.parametrize("settings", [{"rules": ("NOPE",)}, {"rules": ()}, {"cost": 0}, {"cost": float("inf")}])
def test_settings_that_mean_nothing_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=r"NOPE|at least|greater|finite"):
        CodeLint(**settings)


def test_without_ruff_the_settings_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValidationError, match=r'pip install "sharpen\[lint\]"'):
        CodeLint(rules=("F",))
