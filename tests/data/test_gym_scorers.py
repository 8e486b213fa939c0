"""Every task of reasoning-gym: the reference scores full, wrong answers less; and where its scorers are wrong."""

import json
import time

import pytest

from sharpen.data.tasks import resolve_task
from sharpen.data.tasks.gym_checks import DECIDED, EXACT, GUARDED, executes_answers
from sharpen.data.tasks.gym_worker import restored
from sharpen.errors import RecipeError
from sharpen.types import Refused

reasoning_gym = pytest.importorskip("reasoning_gym")

from reasoning_gym.factory import DATASETS, register_dataset  # noqa: E402

from sharpen.data.tasks import gym  # noqa: E402

NO_TASKS = {"composite": "is a mixture of other tasks, named in its configuration"}
NO_ANSWER = {
    "boxnet": "any plan that moves the boxes is right, and none comes with the problem",
    "graph_color": "any colouring is right; one is in the metadata",
    "propositional_logic": "any conclusion that follows is right; one is in the metadata",
    "rubiks_cube": "any moves that solve the cube are right; some are in the metadata",
    "rush_hour": "any moves that free the car are right, and none come with the problem",
}
WRONG = (
    "nan", "inf", "1e999", "None", "null", "[]", "{}", "x", "asdf qwer", "-987654321", "[[1]]", '["a"]', "infeasible",
    '""', "(1,", "the answer is as above", "__import__('os').getpid()", "1 if 1 else 0", "Q" * 3000,
)  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def _end_the_workers():
    yield
    gym._workers.close()


def row_of(entry):
    return {"prompt": entry["question"], "answer": entry["answer"], "metadata": entry["metadata"]}


def example(entry):
    """A right answer in the metadata of a task that gives none."""
    metadata = entry["metadata"]
    if "possible_answer" in metadata:
        return json.dumps(metadata["possible_answer"])
    return metadata.get("example_correct_answer", metadata.get("example_answer"))


@pytest.mark.parametrize("name", sorted(set(DATASETS) - set(NO_TASKS)))
def test_the_reference_scores_full_and_wrong_answers_less(name):
    task = resolve_task(f"reasoning_gym:{name}?train_size=1&held_out_size=1&seed=5")
    entries = list(task._dataset(seed=5, size=2))
    for entry, other in zip(entries, reversed(entries), strict=True):
        row = row_of(entry)
        right = entry["answer"]
        assert entry["metadata"]["source_dataset"] == name
        assert restored(json.loads(json.dumps(gym.plain(entry)))) == entry
        assert (right is None) == (name in NO_ANSWER)
        if right is not None:
            assert task.verify(right, **row) > gym.FULL_SCORE
            assert task.verify(f"Let me see.\n<answer>{right}</answer>", **row) > gym.FULL_SCORE
        # A conclusion that happens to be a single variable is worth a quarter.
        elif (found := example(entry)) is not None:
            assert task.verify(found, **row) >= (0.25 if name == "propositional_logic" else 1)
        wrong = {*WRONG, *([] if other["answer"] in (None, right) else [other["answer"]])}
        scores = {answer: task.verify(answer, **row) for answer in sorted(wrong)}
        assert {answer: score for answer, score in scores.items() if not 0 <= score < 0.95} == {}


def test_the_tables_name_existing_tasks():
    assert {*DECIDED, *EXACT, *GUARDED, *NO_ANSWER, *NO_TASKS} <= set(DATASETS)


HALTING = {"answer": "False", "metadata": {}}
COIN = {"answer": "0.3125", "metadata": {}}
GSM = {"answer": "1500", "metadata": {}}
FOUR = {"answer": "10*(8 - 5) - 6", "metadata": {"numbers": [8, 5, 10, 6]}}
COUNT = {"answer": "94*4 - 61 - 6", "metadata": {"numbers": [6, 61, 94, 4], "target": 309}}
SORTED = {"answer": "['52.2', '30.0', '-49.0']", "metadata": {"direction": "descending"}}
RARE = {"answer": "3.051757812e-05", "metadata": {}}
DECISIONS = [
    ("game_of_life_halting", HALTING, ["False", "false"], ["True", "0", "no", "False or True"]),
    ("coin_flip", COIN, ["0.3125", "5/16", ".3125"], ["0", "0.3", "0.31", "0.313", "5/0", "1e999999999", "nan"]),
    ("coin_flip", RARE, ["3.051757812e-05", "0.00003052", "1/32768"], ["0", "0.0001", "3e-5"]),
    ("gsm_symbolic", GSM, ["1500", "1,500", "1500.0", "$1500", "It is 1500."], ["-1500", "1500/2", "1500 or 1", "1"]),
    (
        "puzzle24",
        FOUR,
        ["10*(8 - 5) - 6", "(8-5)*10-6", "-6 + 10*(8-5)"],
        ["6*4*1*1", "24", "10*(8-5)-6+0", "8+5+10+6", "10*8-5-6", "8*5*10**6", "(8,5,10,6)", "8/(5-5)+10+6", "("],
    ),
    (
        "countdown",
        COUNT,
        ["94*4 - 61 - 6", "4*94-(61+6)"],
        ["309", "94*4-61-6-0", "94*4 - 67", "309+0*(6+61+94+4)", "9" * 5000, "-" * 5000 + "1"],
    ),
    (
        "number_sorting",
        SORTED,
        ["['52.2', '30.0', '-49.0']", '["52.2", "30", "-49"]', "[52.2, 30, -49]"],
        ["['52.9', '30.9', '-48.1']", "['-49.0', '30.0', '52.2']", "['52.2', '30.0']", "[1e400, 1, 1]", "[[1]]", "3"],
    ),
]  # fmt: skip


@pytest.mark.parametrize(("name", "entry", "right", "wrong"), DECISIONS)
def test_the_checks_that_replace_a_scorer(name, entry, right, wrong):
    assert [DECIDED[name](answer, entry) for answer in right] == [True] * len(right)
    assert [answer for answer in wrong if DECIDED[name](answer, entry)] == []


def test_every_replaced_scorer_is_tested():
    assert {name for name, *_ in DECISIONS} == set(DECIDED)


FUNCTIONS = "6+61+94+4 + (floor(pi)*floor(E)*floor(E))**floor(E)"
"""165 + 144 = 309, the target of `COUNT`, with more than the given numbers."""
BOARD = "[[0,1],[1,0]]"
FULL_SCORES = [
    ("complex_arithmetic", {"answer": "-15.0 + 3.0i", "metadata": {"result": (-15.0, 3.0)}}, "-15+3i", "nan"),
    ("calendar_arithmetic", {"answer": "-1", "metadata": {"task": "recurring_event_day"}}, "-1", "5"),
    ("figlet_font", {"answer": "BLACKBOARDS", "metadata": {}}, "blackboards", "blackboards!"),
    ("game_of_life", {"answer": BOARD, "metadata": {}}, "[[0, 1], [1, 0]]", "[[0,1,1],[1,0,1],[1]]"),
    ("game_of_life", {"answer": BOARD, "metadata": {}}, BOARD, "[[false,true],[true,false]]"),
    ("letter_jumble", {"answer": "two words", "metadata": {}}, "Two words", "two words and more"),
    ("word_sorting", {"answer": "a, b", "metadata": {"sorted_words": ["a", "b"]}}, "a,b", "a, b, c"),
    ("spell_backward", {"answer": "abcdefghij", "metadata": {}}, "abcdefghij", "abcdefghijk"),
    ("polynomial_equations", {"answer": "1.5, 2.0", "metadata": {"real_solutions": [1.5, 2.0]}}, "2,1.5", "1.5, 2, x"),
    ("polynomial_equations", {"answer": "", "metadata": {"real_solutions": []}}, '""', "none of them"),
    (
        "quantum_lock",
        {
            "answer": "A → A",
            "metadata": {
                "initial_value": 0, "initial_state": "red", "target_value": 2,
                "buttons": [{"name": "A", "type": "add", "value": 1, "active_state": "any"}],
            },
        },
        "A -> A",
        "A hat",
    ),
    ("time_intervals", {"answer": "5 days", "metadata": {"task_type": "date"}}, "5 days", "5 weeks"),
    ("time_intervals", {"answer": "2 days, 03:04", "metadata": {"task_type": "datetime"}}, "2 days, 03:04",
     "2 days, 03:04, or 5"),
    ("game_of_life_halting", HALTING, "False", "True"),
    ("coin_flip", COIN, "0.3125", "0"),
    ("coin_flip", RARE, "1/32768", "0.0001"),
    ("gsm_symbolic", GSM, "1500", "-1500"),
    ("gsm_symbolic", GSM, "1,500", "1500 or 1"),
    ("puzzle24", FOUR, "10*(8 - 5) - 6", "6*4*1*1"),
    ("countdown", COUNT, "94*4 - 61 - 6", FUNCTIONS),
    ("number_sorting", SORTED, "['52.2', '30.0', '-49.0']", "['52.9', '30.9', '-48.1']"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "entry", "right", "wrong"), FULL_SCORES)
def test_a_wrong_answer_with_a_full_score_gets_zero(name, entry, right, wrong):
    task = resolve_task(f"reasoning_gym:{name}?train_size=1&held_out_size=1")
    row = {"prompt": "?", **entry}
    assert task._scored(wrong, {"question": "?", **entry}) > 0.99, "reasoning-gym now scores this right"
    assert task.verify(right, **row) > gym.FULL_SCORE
    assert task.verify(wrong, **row) == 0


def test_every_check_of_a_score_is_needed():
    assert {name for name, *_ in FULL_SCORES} == {*EXACT, *DECIDED}


def test_every_scorer_that_executes_answers_is_guarded():
    executing = {name for name, (kind, _) in DATASETS.items() if executes_answers(kind)}
    assert executing == {*GUARDED, "countdown", "puzzle24"}
    assert executing <= {*GUARDED, *DECIDED}


@pytest.mark.parametrize("name", sorted(GUARDED))
def test_nothing_in_an_answer_is_executed(name, tmp_path):
    task = resolve_task(f"reasoning_gym:{name}?train_size=1&held_out_size=1")
    row = row_of(task._dataset(seed=0, size=1)[0])
    made = tmp_path / "made"
    opening = f"open({str(made)!r}, 'w')"
    for answer in (
        opening,
        f"[{opening}]",
        f"[x for x in {opening}]",
        f"f'{{{opening}}}'",
        f"(lambda: {opening})()",
        f"sympify({opening!r})",
        f"exp({opening!r})",
        f"x.subs({opening!r}, 1)",
        f"(1).__class__.__base__.__subclasses__() or {opening}",
    ):
        assert task.verify(answer, **row) == 0
    assert not made.exists()


def test_an_unknown_scorer_that_executes_answers_is_refused():
    from reasoning_gym.coaching import BaseCurriculum
    from reasoning_gym.games.n_queens import NQueensConfig, NQueensDataset

    class Evaluating(NQueensDataset):
        def score_answer(self, answer, entry):
            return float(eval(answer))

    if "evaluating" not in DATASETS:
        register_dataset("evaluating", Evaluating, NQueensConfig, BaseCurriculum)
    try:
        with pytest.raises(RecipeError, match="evaluating: its scorer executes the model's answers"):
            resolve_task("reasoning_gym:evaluating?train_size=1&held_out_size=1")
    finally:
        del DATASETS["evaluating"]


def test_an_answer_that_hangs_the_scorer_scores_0_and_the_next_one_is_scored(monkeypatch):
    task = resolve_task("reasoning_gym:rush_hour?train_size=1&held_out_size=1")
    row = row_of(task._dataset(seed=0, size=1)[0])
    assert task.verify("A+1", **row) == 0.01
    monkeypatch.setattr(gym, "SCORE_TIMEOUT_S", 0.5)
    start = time.monotonic()
    score = task.verify("A+99999999999", **row)
    assert isinstance(score, Refused)
    assert (score, score.reason) == (0.0, "no answer within 0.5 s")
    assert time.monotonic() - start < 5
    monkeypatch.undo()
    assert task.verify("A+1", **row) == 0.01


def test_a_scorer_that_raises_for_the_reference_too_is_an_error():
    task = resolve_task("reasoning_gym:prime_factorization?train_size=1&held_out_size=1")
    with pytest.raises(
        ValueError, match="the scorer also raises for the row's reference answer: ValueError: invalid literal"
    ):
        task.verify("2 × 3", prompt="?", answer="two times three", metadata={})


@pytest.mark.parametrize(("raw", "score"), [(float("nan"), 0), (-0.5, 0), (0.25, 0.25), (1.5, 1)])
def test_scores_are_finite_and_between_0_and_1(raw, score, monkeypatch):
    task = resolve_task("reasoning_gym:rush_hour?train_size=1&held_out_size=1")
    monkeypatch.setattr(task, "_scored", lambda given, entry: raw)
    assert task.verify("A+1", prompt="?", answer=None, metadata={}) == score


def test_an_unknown_type_in_an_entry_is_named():
    with pytest.raises(TypeError, match="cannot send a set to the scoring process"):
        gym.plain({"metadata": [{1, 2}]})
