from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread

from sharpen.evaluation.estimators import Estimate
from sharpen.report.plot import Stage, _shares, plot_run
from sharpen.report.series import Track, series, smooth

BEFORE = {"pass@1": Estimate(0.5, 0.45, 0.55), "maj@8": Estimate(0.7, float("nan"), float("nan"))}
AFTER = {"pass@1": Estimate(0.9, 0.85, 0.93), "maj@8": Estimate(0.95, 0.9, 0.97)}


def grpo_rows() -> list[dict[str, Any]]:
    rows = [
        {
            "step": i,
            "reward/mean": i / 40,
            "loss": 0.0,
            "kl": 0.01,
            "entropy": 0.3,
            "truncated": 0.1,
            "length/mean": 9,
        }
        for i in range(41)
    ]
    rows[20] |= {"held_out/pass@1": 0.5, "held_out/pass@1_low": 0.4, "held_out/pass@1_high": 0.6}
    return rows


def test_a_run_is_drawn_at_the_width_of_a_page(tmp_path: Path) -> None:
    sft = Stage("SFT", [{"step": i, "loss": 2.0 - i / 100} for i in range(100)])
    path = tmp_path / "new folder" / "run.png"
    before = dict(mpl.rcParams)
    plot_run([sft, Stage("GRPO", grpo_rows())], path, BEFORE, AFTER, title="A run")
    image = imread(path)
    assert image.shape[1] == 1600
    assert 700 < image.shape[0] < 1200
    assert image[..., :3].std() > 0.05
    assert dict(mpl.rcParams) == before


def test_a_picture_that_is_there_stays_until_the_new_one_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def half(self: Figure, path: Path, **settings: Any) -> None:
        Path(path).write_bytes(b"half")
        raise KeyboardInterrupt

    path = tmp_path / "run.png"
    plot_run([Stage("GRPO", grpo_rows())], path)
    whole = path.read_bytes()
    monkeypatch.setattr(Figure, "savefig", half)
    with pytest.raises(KeyboardInterrupt):
        plot_run([Stage("GRPO", grpo_rows())], path)
    assert path.read_bytes() == whole


@pytest.mark.parametrize(
    ("stages", "measures"),
    [
        ([Stage("SFT", [{"step": 1, "loss": 2.0}])], ({}, {})),
        ([Stage("GRPO", [{"step": 1, "reward/mean": -1.5}, {"step": 2, "reward/mean": 3.0}])], ({}, {})),
        ([Stage("GRPO", [{"step": 0, "held_out/pass@1": 0.5}])], ({}, {})),
        ([Stage("GRPO", grpo_rows())], (BEFORE, {})),
        ([], (BEFORE, AFTER)),
    ],
)
def test_what_is_missing_is_left_out(stages: list[Stage], measures: Any, tmp_path: Path) -> None:
    plot_run(stages, tmp_path / "run.png", *measures)
    assert imread(tmp_path / "run.png").shape[1] == 1600


def test_only_shares_are_drawn_before_and_after(tmp_path: Path) -> None:
    length = {"length": Estimate(31.0, 30.0, 32.0), "loss": Estimate(0.7, 0.6, 0.8)}
    assert _shares({**BEFORE, **length}, {**AFTER, **length}) == ["pass@1", "maj@8"]
    of_source = {"math/length": Estimate(1.0, 1.0, 1.0), "math/loss": Estimate(0.7, 0.6, 0.8)}
    mean_reward = {"reward": Estimate(0.5, 0.4, 0.6), "shows its work": Estimate(0.5, 0.4, 0.6)}
    assert _shares(of_source | mean_reward, of_source | mean_reward) == ["reward", "shows its work"]
    with pytest.raises(ValueError, match="nothing that could be drawn"):
        plot_run([], tmp_path / "run.png", length, length)


def test_nothing_to_draw_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nothing that could be drawn"):
        plot_run([Stage("SFT", [{"step": 1, "loss": float("nan")}])], tmp_path / "run.png")


def test_series_keeps_the_finite_values() -> None:
    rows = [{"step": 1, "kl": 0.5}, {"step": 2}, {"step": 3, "kl": float("nan")}, {"step": 4, "kl": None}]
    line = series([*rows, {"step": 5, "kl": 1}], "kl")
    assert line is not None
    assert (line.steps.tolist(), line.values.tolist()) == ([1.0, 5.0], [0.5, 1.0])
    assert series(rows, "entropy") is None


def test_smoothing_keeps_a_straight_line_and_short_series() -> None:
    short = np.array([3.0, 1.0, 2.0])
    np.testing.assert_array_equal(smooth(short), short)
    line = np.arange(100.0)
    np.testing.assert_allclose(smooth(line)[5:-5], line[5:-5])
    assert smooth(line)[0] == 0.5
    assert smooth(np.array([0.0] * 10 + [5.0] + [0.0] * 9))[10] == pytest.approx(5 / 3)


def test_stages_get_equal_widths() -> None:
    track = Track([("SFT", [{"step": 800}]), ("GRPO", [{"step": 0}, {"step": 150}])])
    assert track.x(0, np.array([0.0, 400.0])).tolist() == [0.0, 0.5]
    assert track.x(1, np.array([0.0, 75.0])).tolist() == [1.0, 1.5]
    positions, labels = track.ticks(5)
    assert labels == ["0", "200", "400", "600", "0", "50", "100", "150"]
    assert positions[:5] == [0.0, 0.25, 0.5, 0.75, 1.0]


def test_dollars_in_a_name_are_no_formula(tmp_path: Path) -> None:
    broken = r"runs/$x_{$ \frac$"
    measures = {broken: Estimate(0.5, 0.4, 0.6)}
    plot_run([Stage(broken, grpo_rows())], tmp_path / "run.png", measures, measures, title=broken)
    assert imread(tmp_path / "run.png").shape[1] == 1600
