"""A completion decides its own score, and never whether the run goes on: whatever it is, no reward raises.

What it does to the machinery that judges it is a score of 0 with the reason; `tests/test_worker.py` has what is not.
"""

import json
from collections.abc import Iterator
from typing import Any

import pytest

import hostile_texts as hostile
from sharpen.data.tasks import TASKS, resolve_task
from sharpen.data.tasks.gym_checks import DECIDED, EXACT, GUARDED
from sharpen.rewards import resolve_reward
from sharpen.rewards.kinds import REWARDS
from sharpen.rewards.math import verifier as math_verifier
from sharpen.rewards.math.verifier import Math
from sharpen.rewards.scoring import score_groups
from sharpen.rewards.text import json_schema, regex
from sharpen.rewards.text.json_schema import JsonSchema
from sharpen.rewards.verifier import Verifier
from sharpen.types import Refused, Score

ROWS: dict[str, dict[str, Any]] = {
    "code_tests": {"tests": {"inputs": ["1"], "outputs": ["2"]}},
    "code_asserts": {"test_list": ["assert f(1) == 2"]},
    "code_check": {"test": "def check(c):\n    assert c(c(1)) == 2", "entry_point": "f"},
}
SETTINGS: dict[str, tuple[dict[str, Any], ...]] = {
    "exact_answer": tuple({"answer_from": source} for source in ("whole", "marker", "tags", "boxed", "last_number")),
    "contains": ({"words": ("aaab", "x")}, {"words": ("İ",), "whole_word": False}),
    "regex": ({"pattern": r"(?s)(a|\w|\s)*!", "mode": "search", "timeout_s": 0.1},),
    "tags": ({}, {"prefilled": True}),
    "math": tuple({"answer_from": source} for source in ("marker", "tags", "last_number")),
    "json_schema": tuple({"schema": True, "answer_from": source} for source in ("whole", "fence", "tags")),
    "language": ({"language": "en"}, {"script": "latin"}),
    "repetition": ({},),
    "code_tests": ({"code_from": "whole"}, {}),
    "code_asserts": ({"code_from": "whole"},),
    "code_check": ({"code_from": "whole", "prompt_column": None},),
    "code_compiles": ({"code_from": "whole"},),
    "code_lint": ({"code_from": "whole"},),
}
VERIFIERS = {name: kind.settings for name, kind in REWARDS.items() if issubclass(kind.settings, Verifier)}

TEXTS = {
    **hostile.HOSTILE_CHARACTERS,
    **hostile.HOSTILE_NUMBERS,
    **hostile.HOSTILE_JSON,
    **{name: make(4_000) for name, make in hostile.HOSTILE_TEXTS.items()},
}


@pytest.fixture(scope="module", autouse=True)
def _end_the_workers() -> Iterator[None]:
    yield
    for module in (json_schema, regex, math_verifier):
        module._workers.close()


def assert_scored(value: object, *where: object) -> None:
    assert isinstance(value, float), where
    assert -1.0 <= value <= 1.0, where


@pytest.mark.parametrize("name", VERIFIERS)
def test_every_reward_scores_whatever_it_gets(name: str) -> None:
    for settings in SETTINGS[name]:
        reward = VERIFIERS[name](**settings)
        for text in TEXTS.values():
            for completion in (text, f"<answer>{text}</answer>\n#### {text}\n```\n{text}\n```"):
                assert_scored(reward(completion, **ROWS.get(name, {"answer": "5"})), settings, completion[:40])
                if reward.has_answer:
                    reward.answer(completion)


@pytest.mark.parametrize("name", TASKS)
def test_every_task_scores_whatever_it_gets(name: str) -> None:
    task = resolve_task(name)
    row = task.held_out_rows()[0]
    for where, text in TEXTS.items():
        assert_scored(float(task.verify(text, **row)), where)
        if task.answer is not None:
            task.answer(text)


@pytest.mark.parametrize("name", sorted({**DECIDED, **EXACT, **GUARDED}))
def test_every_check_of_a_gym_answer_scores_whatever_it_gets(name: str) -> None:
    metadata = {"numbers": [1], "target": 1, "sorted_words": ["a"], "real_solutions": [1]}
    for text in (*TEXTS.values(), *hostile.HOSTILE_MATHS.values()):
        if name in GUARDED:
            GUARDED[name](text)
        else:
            entry = {"answer": "[1]" if name == "number_sorting" else "1", "metadata": metadata}
            {**DECIDED, **EXACT}[name](text, entry)


@pytest.mark.parametrize("schema", hostile.HOSTILE_SCHEMAS.values(), ids=hostile.HOSTILE_SCHEMAS)
def test_json_of_any_kind_is_scored(schema: Any) -> None:
    reward = JsonSchema(schema=schema, timeout_s=0.5)
    for where, text in {**hostile.HOSTILE_JSON, **hostile.HOSTILE_NUMBERS}.items():
        assert_scored(reward(text), where)


def test_why_json_could_not_be_judged_is_said() -> None:
    number = JsonSchema(schema={"multipleOf": 0.01})("1e400")
    assert isinstance(number, Refused)
    assert number.reason == "OverflowError: cannot convert Infinity to integer ratio"
    objects = JsonSchema(schema={"uniqueItems": True}, timeout_s=0.3)(json.dumps([{"a": i} for i in range(5000)]))
    assert isinstance(objects, Refused)
    assert (objects.reason, objects.timed_out) == ("no answer within 0.3 s", True)


def test_a_schema_of_many_calls_a_level_does_not_go_round_in_circles() -> None:
    reward = JsonSchema(schema=hostile.HOSTILE_SCHEMAS["a tree of many calls a level"])
    assert reward("[" * 90 + "]" * 90) == 1.0


# What none of them equals; the towers of powers are tried once, as each ends a worker.
@pytest.mark.parametrize("expected", ["x^2+1", r"\{1,2\}", r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", "1" * 2600])
def test_mathematics_of_any_kind_is_scored(expected: str) -> None:
    reward = Math(answer_from="whole", timeout_s=0.3)
    answers = {**hostile.HOSTILE_MATHS, **hostile.HOSTILE_NUMBERS} if expected == "x^2+1" else hostile.HOSTILE_NUMBERS
    for where, answer in answers.items():
        assert reward(answer, answer=expected) == 0.0, where


def test_an_answer_that_hangs_is_tried_once_for_a_whole_group(group: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    judge = math_verifier._workers.judge
    monkeypatch.setattr(math_verifier._workers, "judge", lambda *given: asked.append(given) or judge(*given))
    reward = resolve_reward({"name": "math", "answer_from": "whole", "timeout_s": 0.31, "call": {"at_once": 1}})
    answers = ["8^{8^{8^8}}", "8^{8^{8^8}}", "5"]
    [scored], _ = score_groups(reward, [group(answers, answer="5")], max_failure_rate=0.0)
    hangs = Score(0.0, {"math": 0.0}, timed_out=True, refused="math: no answer within 0.31 s")
    assert scored.scores == (hangs, hangs, Score(1.0, {"math": 1.0}))
    assert len(asked) == 1


ASSERTS = (
    "assert f(f(1)) == 2",
    "assert g([[f(1)]]) == 3",
    "assert list(map(g, f(1))) == [3]",
    "assert g(*f(1)) == 3",
    "assert sorted(f(1)) == g(len(f(1)))",
    "assert g(f(1) + f(1)) == 3",
    "assert g({f(1): 1}) == 3",
    "assert f'{f(1)}' == g(f'{f(1)!r}')",
)
EXPECTED = (2, [1], {"a": 1}, {1}, 1.5, "a", [[[]]], (1,), frozenset({1}), b"a", None)


@pytest.mark.parametrize("body", hostile.HOSTILE_VALUES.values(), ids=hostile.HOSTILE_VALUES)
def test_programs_that_return_anything_are_scored(body: str) -> None:
    code = hostile.returning(body)
    asserts = VERIFIERS["code_asserts"](code_from="whole", test_timeout_s=0.5)
    assert asserts(code, test_list=list(ASSERTS)) == 0.0
    share = VERIFIERS["code_asserts"](code_from="whole", test_timeout_s=0.5, score="share")
    assert share(code, test_list=list(ASSERTS)) == 0.0
    tests = VERIFIERS["code_tests"](code_from="whole", test_timeout_s=0.5)
    for expected in EXPECTED:
        row = {"tests": {"inputs": [[1]], "outputs": [expected], "fn_name": "f"}}
        assert_scored(tests(code, **row), expected)
    assert tests(f"{code}print(f(1))", tests={"inputs": ["1"], "outputs": ["2"]}) == 0.0


def test_the_reason_is_recorded_and_the_run_goes_on(group: Any) -> None:
    reward = resolve_reward(
        [{"name": "regex", "pattern": "(a+)+b", "mode": "search", "timeout_s": 0.2}, {"name": "repetition"}]
    )
    [scored], _ = score_groups(reward, [group(["a" * 100])], max_failure_rate=0.0)
    [score] = scored.scores
    assert (score.total, score.parts["regex"], score.error) == (0.0, 0.0, None)
    assert (score.refused, score.timed_out) == ("regex: no answer within 0.2 s", True)
