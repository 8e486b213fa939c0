"""Contestants that take turns, one of which stops answering."""

import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"

WORKER = """
import json, sys, time
settings = json.loads(sys.stdin.readline())
print(json.dumps({"loaded_bytes": 0, "versions": {}}), flush=True)
for turn, _ in enumerate(sys.stdin):
    if turn == settings["answers"]:
        print("lost in thought", file=sys.stderr, flush=True)
        time.sleep(600)
    figures = {"seconds": 2.0, "rollout_s": 1.0, "reward_s": 0.25, "tokens": settings["case"]["limit"], "peak_bytes": 7}
    print(json.dumps(figures), flush=True)
"""


@pytest.fixture
def steps(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    before = set(sys.modules)
    import gpu_steps

    yield gpu_steps
    for name in set(sys.modules) - before:
        if getattr(sys.modules[name], "__file__", None) and BENCHMARKS in Path(sys.modules[name].__file__).parents:
            del sys.modules[name]


def test_who_does_not_answer_is_out_and_the_others_go_on(steps, tmp_path):
    worker = tmp_path / "worker.py"
    worker.write_text(WORKER, encoding="utf-8")
    case = steps.Case("random", prompt=3, limit=5, prompts=1, group=1, spread=False)
    steady, lost = (
        steps.Here(name, str(worker), "", {"answers": answers}) for name, answers in (("steady", -1), ("lost", 1))
    )

    stepped, failed = steps.alternate("model", tmp_path, case, [steady, lost], 2, tmp_path, patience_s=1.0)

    assert list(failed) == ["lost"]
    assert "lost in thought\nlost gave no answer in 1.0 s; see " in failed["lost"]
    (found,) = stepped
    assert found.contestant == "steady"
    # Of 2 s, what is neither rollout nor reward; 5 tokens a step; two turns that warm up are left out.
    assert (found.training_s, found.tokens_per_s, found.steps_s) == (0.75, 2.5, (2.0, 2.0))
