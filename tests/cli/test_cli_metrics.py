"""``sharpen metrics``: what people and programs read about the metrics."""

import json

from typer.testing import CliRunner

from sharpen.cli.app import app
from sharpen.runs.metric_catalogue import catalogue, metrics_tables


def said(*arguments: str) -> str:
    result = CliRunner(env={"COLUMNS": "400"}).invoke(app, ["metrics", *arguments])
    assert result.exit_code == 0, result.output
    return result.output


def test_every_metric_has_its_line() -> None:
    lines = said().splitlines()
    assert [word for line in lines if (word := (line.split() or [""])[0]) in catalogue()] == list(catalogue())


def test_one_metric_is_explained_by_the_name_that_a_run_has() -> None:
    assert said("held_out/truncated").splitlines() == [
        "held_out/truncated   Held-out truncated",
        "share; lower is better",
        "held-out completions that reached the limit of tokens without an end",
        "Normal: low; a truncated answer is rarely right",
    ]
    assert json.loads(said("held_out/math/pass@8", "--json"))["title"] == "Held-out pass@8: math"
    assert json.loads(said("held_out/pass@k", "--json"))["title"] == "Held-out pass@k"


def test_json_and_markdown_have_them_all() -> None:
    assert list(json.loads(said("--json"))) == list(catalogue())
    assert said("--markdown") == metrics_tables()


def test_an_unknown_name_is_an_error_with_the_nearest_one() -> None:
    result = CliRunner().invoke(app, ["metrics", "entrpy"])
    assert result.exit_code != 0
    assert "Did you mean `entropy`?" in result.output
    assert CliRunner().invoke(app, ["metrics", "--markdown", "entropy"]).exit_code != 0
