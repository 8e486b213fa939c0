import contextlib
import os
import sys

import pytest

from sharpen.data.tasks import resolve_task
from sharpen.data.tasks.gym_checks import DECIDED, GUARDED
from sharpen.errors import RecipeError

TRACE = 'environ.setdefault("TRACE", "run")'
CODE = (
    f"__import__('os').{TRACE}",
    f"[__import__('os').{TRACE}]",
    f"__import__('os').{TRACE}!",
    f"import os\nos.{TRACE}",
)
"""Each sets an environment variable when executed."""


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "reasoning_gym.factory", None)
    monkeypatch.setitem(sys.modules, "reasoning_gym", None)
    with pytest.raises(RecipeError, match=r'pip install "sharpen\[tasks\]"'):
        resolve_task("reasoning_gym:chain_sum")


@pytest.fixture
def _gym():
    pytest.importorskip("reasoning_gym")


@pytest.mark.usefixtures("_gym")
class TestWithThePackage:
    def test_parameters_reach_the_problems(self):
        task = resolve_task("reasoning_gym:chain_sum?num_terms=2&max_digits=1&train_size=50&held_out_size=9")
        assert {row["metadata"]["num_terms"] for row in task.held_out_rows()} == {2}
        assert task.name == "reasoning_gym:chain_sum"

    def test_verify(self):
        task = resolve_task("reasoning_gym:chain_sum?train_size=3&held_out_size=3")
        for row in task.train_rows():
            right = row["answer"]
            assert task.verify(right, **row) == 1
            assert task.verify(f"Let me see.\n<answer> {right}\n</answer>", **row) == 1
            assert task.verify(f"<answer>{right}</answer> no, <answer>x</answer>", **row) == 0
            assert task.verify("", **row) == 0

    def test_an_answer_that_the_scorer_cannot_parse_is_wrong(self):
        task = resolve_task("reasoning_gym:prime_factorization?train_size=3&held_out_size=3")
        row = task.train_rows()[0]
        assert (task.verify("many primes", **row), task.verify(row["answer"], **row)) == (0, 1)

    def test_the_reference_is_right(self):
        task = resolve_task("reasoning_gym:countdown?train_size=3&held_out_size=3")
        assert [task.verify(task.reference(row), **row) for row in task.train_rows()] == [1, 1, 1]

    def test_every_scorer_that_executes_answers_is_guarded(self, monkeypatch):
        """Calls every scorer of the installed package directly."""
        from reasoning_gym.factory import DATASETS

        runs = set()
        for name, (kind, settings) in DATASETS.items():
            if name == "composite":  # of others
                continue
            problems = kind(settings(seed=1, size=1))
            for code in CODE:
                monkeypatch.delenv("TRACE", raising=False)
                with contextlib.suppress(Exception):
                    problems.score_answer(code, problems[0])
                if "TRACE" in os.environ:
                    runs.add(name)
        assert runs == {*GUARDED, "countdown", "puzzle24"}
        assert {"countdown", "puzzle24"} <= set(DECIDED)

    def test_a_part_of_a_composite_is_guarded_too(self):
        parts = '[{"name":"countdown","weight":1,"config":{}}]'
        task = resolve_task(f"reasoning_gym:composite?datasets={parts}&train_size=2&held_out_size=1")
        row = task.train_rows()[0]
        assert task.verify(CODE[0], **row) == 0
        assert task.verify(row["answer"], **row) == 1

    def test_parts_are_disjoint_whatever_the_seed_and_sizes(self):
        name = "reasoning_gym:chain_sum?terms=2&digits=2"
        held_out = {row["prompt"] for row in resolve_task(f"{name}&held_out_size=300").held_out_rows()}
        assert len(held_out) == 300
        for more in ("", "&seed=7&train_size=3000"):
            assert not held_out & {row["prompt"] for row in resolve_task(name + more).train_rows()}

    @pytest.mark.parametrize(
        ("spec", "message"),
        [
            ("chain_sums", r"no task 'chain_sums'\. Did you mean `chain_sum`\?"),
            ("chain_sum?max_term=2", r"unknown parameter 'max_term'\. Did you mean `max_terms`\?"),
            ("chain_sum?size=2", r"unknown parameter 'size'\. Did you mean `train_size`\?"),
            ("chain_sum?terms=two", r"terms=two: Input should be a valid integer"),
            ("chain_sum?max_terms=0", "max_terms must be >= min_terms"),
            ("chain_sum?train_size=0", "train_size must be 1 or more, not 0"),
        ],
    )
    def test_bad_specs(self, spec, message):
        with pytest.raises(RecipeError, match=message):
            resolve_task(f"reasoning_gym:{spec}")

    def test_too_few_problems(self):
        task = resolve_task("reasoning_gym:chain_sum?terms=1&digits=1")
        with pytest.raises(RecipeError, match=r"contain only \d+ distinct training problems and \d held-out ones"):
            task.train_rows()
