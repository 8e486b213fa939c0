"""The page's data of runs in which every number can be worked out by hand."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from page_runs import row, run_on_disk, tokens
from sharpen.errors import DataError, RecipeError
from sharpen.report.page.run_data import chunk, page_data, run_data

METRICS: list[dict[str, float]] = [
    {
        "step": 0,
        "held_out/pass@1": 0.25,
        "held_out/pass@1_low": 0.1,
        "held_out/pass@1_high": 0.4,
        "held_out/length": 10.0,
        "time/evaluation_s": 2.0,
    },
    {
        "step": 1,
        "reward/mean": 0.25,
        "reward/std": 0.4,
        "loss": 0.5,
        "tokens_per_s/rollout": 100.0,
        "time/rollout_s": 3.0,
        "tokens_per_s/training": 40.0,
        "time/training_s": 5.0,
        "time/step_s": 8.0,
    },
    {
        "step": 2,
        "reward/mean": 0.75,
        "reward/std": 0.4,
        "loss": 0.25,
        "tokens_per_s/rollout": 50.0,
        "time/rollout_s": 2.0,
        "tokens_per_s/training": 60.0,
        "time/training_s": 1.0,
        "time/step_s": 3.0,
        "held_out/pass@1": 0.75,
        "held_out/pass@1_low": 0.6,
        "held_out/pass@1_high": 0.9,
        "held_out/length": 12.0,
        "time/evaluation_s": 4.0,
    },
]

SAMPLES = {
    1: [
        row("1+1=", "2", 1.0, **{"reward/exact": 1.0, "reward/short": 0.0}),
        row("1+1=", "3", 0.0, **{"reward/exact": 0.0, "reward/short": 0.5}),
        row("2+2=", "4", None, error="the reward raised", finish="length", **{"reward/exact": None}),
    ],
    2: [row("1+1=", "2", 1.0, **tokens(["1", "<eos>"]))],
}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return run_on_disk(tmp_path / "run", METRICS, SAMPLES)


def test_what_a_run_took(run: Path) -> None:
    glance = run_data(run)["glance"]
    assert (glance["step"], glance["steps"]) == (2, 2)
    assert glance["tokens"] == {"rollout": 100 * 3 + 50 * 2, "training": 40 * 5 + 60}
    assert glance["duration_s"] == 2 + 8 + 3 + 4
    assert glance["time"] == [
        {"part": "rollout", "seconds": 5.0},
        {"part": "training", "seconds": 6.0},
        {"part": "evaluation", "seconds": 6.0},
    ]


def test_whether_it_is_better(run: Path) -> None:
    data = run_data(run)
    pass_at_1, length = data["glance"]["measures"]
    assert pass_at_1["before"] == {"step": 0, "mean": 0.25, "low": 0.1, "high": 0.4}
    assert pass_at_1["now"] == {"step": 2, "mean": 0.75, "low": 0.6, "high": 0.9}
    assert pass_at_1["best"]["step"] == 2
    assert pass_at_1["verdict"] == "better"
    assert length["verdict"] is None  # longer is neither better nor worse
    assert data["glance"]["headline"] == (
        "grpo on models/tiny, 2 of 2 steps. Held-out pass@1 went from 25.0 % to 75.0 %: better than before."
    )
    assert data["status"] == "finished"


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [(0.3, 0.5, "unclear"), (0.41, 0.5, "better"), (0.01, 0.09, "worse"), (0.0, 1.0, "unclear")],
)
def test_intervals_that_overlap_are_unclear(low: float, high: float, verdict: str, tmp_path: Path) -> None:
    now = METRICS[2] | {"held_out/pass@1": (low + high) / 2, "held_out/pass@1_low": low, "held_out/pass@1_high": high}
    run = run_on_disk(tmp_path / "run", [*METRICS[:2], now])
    assert run_data(run)["glance"]["measures"][0]["verdict"] == verdict


def test_the_change_on_the_same_prompts_decides_where_it_is_known(tmp_path: Path) -> None:
    """Each of eight prompts is right once more of four: the intervals overlap, the change of 0.25 has none."""

    def answers(right: int) -> list[dict[str, Any]]:
        return [
            row(f"{prompt}", "a", float(i < right + prompt % 2), right=i < right + prompt % 2, answer="a")
            for prompt in range(8)
            for i in range(4)
        ]

    rows = [
        METRICS[0] | {"held_out/pass@1": 0.375, "held_out/pass@1_low": 0.2, "held_out/pass@1_high": 0.6},
        METRICS[1],
        METRICS[2] | {"held_out/pass@1": 0.625, "held_out/pass@1_low": 0.4, "held_out/pass@1_high": 0.8},
    ]
    run = run_on_disk(tmp_path / "run", rows, held_out={0: answers(1), 2: answers(2)})
    measure = run_data(run)["glance"]["measures"][0]
    assert measure["change"] == {"step": 2, "mean": 0.25, "low": 0.25, "high": 0.25}
    assert measure["verdict"] == "better"


def test_the_method_is_told_of_a_run_without_a_record_of_its_start_if_it_is_ours(tmp_path: Path) -> None:
    ours = run_data(run_on_disk(tmp_path / "ours", METRICS))["glance"]
    assert ours["sentence"]["advantage"].startswith("group z-score")
    theirs = run_data(run_on_disk(tmp_path / "theirs", METRICS, recipe={"method": {"name": "mine.py:Own"}}))["glance"]
    assert theirs["sentence"] is None
    assert theirs["method"] == "mine.py:Own"


def test_what_the_start_recorded(run: Path) -> None:
    told = {"sentence": {"source": "s", "reward": "r", "advantage": "a", "loss": "l"}, "paper": "p"}
    begun = {"time": "2026-01-02T03:04:05+00:00", "step": 0, "parameters": 9, "versions": {"torch": "1.0"}}
    resumed = {**begun, **told, "time": "2026-01-03T03:04:05+00:00", "step": 1, "device": "cuda"}
    lines = [json.dumps(begun), json.dumps({**resumed, "versions": {"torch": "2.0"}}), '{"cut off']
    (run / "starts.jsonl").write_text("\n".join(lines))
    glance = run_data(run)["glance"]
    assert glance["started"] == "2026-01-02T03:04:05+00:00"
    assert glance["sentence"] == told["sentence"]
    assert glance["model"] == {"path": "models/tiny", "parameters": 9, "lora": False}
    assert ["device", "cuda"] in glance["made_from"]
    assert ["torch", "2.0"] in glance["made_from"]
    assert ["data", "arithmetic"] in glance["made_from"]


def test_the_groups_of_a_step(run: Path) -> None:
    found = chunk(run, "training/1")
    assert (found["step"], found["kind"]) == (1, "training")
    assert [(group["prompt"], [one["row"] for one in group["rows"]]) for group in found["groups"]] == [
        ("1+1=", [0, 1]),
        ("2+2=", [2]),
    ]
    first, second = found["groups"][0]["rows"]
    assert (first["completion"], first["reward"], first["parts"]) == ("2", 1.0, {"exact": 1.0, "short": 0.0})
    assert (second["completion"], second["reward"], second["parts"]) == ("3", 0.0, {"exact": 0.0, "short": 0.5})
    [failed] = found["groups"][1]["rows"]
    assert (failed["reward"], failed["error"], failed["finish"]) == (None, "the reward raised", "length")
    assert failed["parts"] == {"exact": None, "short": None}
    assert not failed["has_tokens"]
    assert run_data(run)["steps"] == {"training": [1, 2], "held_out": [], "tokens": [2]}


def test_the_tokens_of_a_completion(run: Path) -> None:
    assert chunk(run, "training/2")["groups"][0]["rows"][0]["has_tokens"]
    found = chunk(run, "tokens/2/0")
    assert found["texts"] == ["1", "<eos>"]
    assert found["trained"] == [1, 1]
    assert found["clipped"] == [0, 0]
    exact = SAMPLES[2][0]["coefficient"]
    assert found["coefficient"] == [pytest.approx(value, rel=5e-5) for value in exact]
    assert "kl" not in found  # no column of that name


@pytest.mark.parametrize(
    "name", ["training/3", "held_out/0", "tokens/1/0", "tokens/2/1", "../recipe.yaml", "training/-1", "training/1/", ""]
)
def test_a_chunk_that_is_not_there(name: str, run: Path) -> None:
    with pytest.raises(DataError, match="there is no"):
        chunk(run, name)


def test_long_texts_are_cut_and_say_so(tmp_path: Path) -> None:
    conversation = json.dumps([{"role": "user", "content": "a" * 60_000}, {"role": "assistant", "content": "b"}])
    rows = [row("p", "x" * 50_000), row("p", "x" * 50_001), row("p", "b", messages=conversation)]
    run = run_on_disk(tmp_path / "run", METRICS, {1: rows})
    whole, cut, talk = chunk(run, "training/1")["groups"][0]["rows"]
    assert (len(whole["completion"]), whole["cut"]) == (50_000, False)
    assert (len(cut["completion"]), cut["cut"]) == (50_000, True)
    assert talk["cut"]
    assert sum(len(text) for message in talk["messages"] for text in message.values()) <= 50_000


def test_runs_have_names_of_their_own(tmp_path: Path) -> None:
    one, two = run_on_disk(tmp_path / "a" / "run", METRICS), run_on_disk(tmp_path / "b" / "run", METRICS)
    data = page_data([one, two])
    assert [shown["name"] for shown in data["runs"]] == [str(one), str(two)]
    assert data["runs"][0]["id"] == hashlib.sha256(str(one).encode()).hexdigest()[:12]
    assert page_data([one])["runs"][0]["name"] == "run"
    assert data["catalogue"].keys() == data["runs"][0]["series"]["values"].keys()


def test_damaged_files_are_named_and_the_rest_is_shown(run: Path) -> None:
    (run / "samples" / "step_000002.parquet").write_bytes(b"PAR1 no more")
    with (run / "metrics.jsonl").open("a") as file:
        file.write("no row\n{}\n")
    said: list[str] = []
    data = run_data(run, say=said.append)
    assert [finding["id"] for finding in data["findings"] if "damaged" in finding["id"]] == [
        "samples_damaged",
        "metrics_damaged",
    ]
    assert any("metrics.jsonl" in text for text in said)
    assert any("step_000002.parquet" in text for text in said)
    assert data["series"]["step"] == [0, 1, 2]
    assert data["steps"]["training"] == [1, 2]
    assert chunk(run, "training/1")["step"] == 1
    with pytest.raises(DataError, match=r"step_000002\.parquet"):
        chunk(run, "training/2")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: &x [1]\nb: *x\n", "alias"),
        ("[" * 5_000, "not a recipe"),
        ("- 1\n", "not a recipe"),
        ("a: 2001-99-99\n", "not a recipe"),
        ("a: !!python/object:os.system {}\n", "not a recipe"),
        ("a: " + "x" * 2**21, "larger than"),
    ],
)
def test_a_recipe_that_no_run_wrote(text: str, said: str, run: Path) -> None:
    (run / "recipe.yaml").write_text(text)
    with pytest.raises(DataError, match=rf"recipe\.yaml: .*{said}"):
        run_data(run)


def test_not_a_run(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"no recipe\.yaml"):
        run_data(tmp_path)


def test_the_headline_names_what_got_worse(tmp_path: Path) -> None:
    def row(step: int, **means: float) -> dict[str, float]:
        """Measures with intervals of 0.1 to each side."""
        ends = {"": 0.0, "_low": -0.1, "_high": 0.1}
        named = {name.replace("__", "/"): mean for name, mean in means.items()}
        return {"step": step} | {
            f"held_out/{n}{end}": mean + by for n, mean in named.items() for end, by in ends.items()
        }

    rows = [row(0, reward=0.25, reward__brevity=0.25, reward__sums=0.75, length=20.0)]
    rows.append(row(4, reward=0.75, reward__brevity=0.75, reward__sums=0.25, length=4.0))
    run = run_on_disk(tmp_path / "run", rows, recipe={"model": {"path": "runs/sft/checkpoints/step_000800"}})
    assert run_data(run)["glance"]["headline"] == (
        "grpo on sft/step_000800, 4 of 4 steps. Held-out reward went from 0.25 to 0.75: better than before. "
        "Worse: reward/sums."
    )
