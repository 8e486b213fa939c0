import datetime
import re
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import ValidationError

from hostile_texts import random_texts
from sharpen.errors import RewardError
from sharpen.rewards import resolve_reward
from sharpen.rewards.text import json_schema
from sharpen.rewards.text.json_schema import JsonSchema
from sharpen.types import Score

PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer", "minimum": 0}},
    "required": ["name", "age"],
    "additionalProperties": False,
}
GOOD = '{"name": "Ada", "age": 36}'
TREE = {"$ref": "#/$defs/tree", "$defs": {"tree": {"type": "array", "items": {"$ref": "#/$defs/tree"}}}}


@pytest.fixture(scope="module", autouse=True)
def _end_the_workers() -> Iterator[None]:
    yield
    json_schema._workers.close()


@pytest.mark.parametrize(
    ("completion", "reward"),
    [
        (GOOD, 1.0),
        (f"\n {GOOD}\n", 1.0),
        ('{"name": "Ada"}', 0.0),
        ('{"name": "Ada", "age": -1}', 0.0),
        ('{"name": "Ada", "age": "36"}', 0.0),
        ('{"name": "Ada", "age": 36, "more": 1}', 0.0),
        ('{"name": "Ada", "age": 36, "age": 37}', 0.0),
        ('{"name": "Ada", "age": NaN}', 0.0),
        ("{'name': 'Ada', 'age': 36}", 0.0),
        (f"Here it is: {GOOD}", 0.0),
        (f"{GOOD} {GOOD}", 0.0),
        (f"```json\n{GOOD}\n```", 0.0),
        ("", 0.0),
        ("[" * 100_000, 0.0),
        ("1" * 10_000, 0.0),
    ],
)
def test_the_whole_completion(completion: str, reward: float) -> None:
    assert JsonSchema(schema=PERSON)(completion) == reward


@pytest.mark.parametrize(
    ("completion", "reward"),
    [
        (f"So:\n```json\n{GOOD}\n```\nThat is it.", 1.0),
        (f"```\n{GOOD}\n```", 1.0),
        (f"```JSON\n{GOOD}\n```", 1.0),
        (f"```json\n1\n```\nNo:\n```json\n{GOOD}\n```", 1.0),
        (f"```json\n{GOOD}\n```\nNo:\n```json\n1\n```", 0.0),
        (f"```python\n{GOOD}\n```", 0.0),
        (f"```json\n{GOOD}", 0.0),
        (GOOD, 0.0),
    ],
)
def test_in_a_fenced_block(completion: str, reward: float) -> None:
    assert JsonSchema(schema=PERSON, answer_from="fence")(completion) == reward


def test_blocks_are_those_of_a_pattern() -> None:
    fence = re.compile(r"^[ ]{0,3}```[ \t]*(?:json)?[ \t]*\n(.*?)^[ ]{0,3}```[ \t]*$", re.DOTALL | re.MULTILINE | re.I)
    pieces = ["```", "``", "```json\n", "\n```\n", "\n```", " ", "\t", "json", "JSON", "\n", "\r", "{}", "x"]
    found = 0
    for text in random_texts(pieces, most_pieces=15):
        blocks = fence.findall(text)
        read = json_schema._last_block(text)
        assert read == (blocks[-1].removesuffix("\n") if blocks else None), repr(text)
        found += bool(blocks)
    assert found > 500


def test_in_tags() -> None:
    verifier = JsonSchema(schema=PERSON, answer_from="tags", tag="json")
    assert verifier(f"<think>hm</think><json>{GOOD}</json>") == 1.0
    assert verifier(f"<json>{GOOD}</json><json>{GOOD}</json>") == 0.0


def test_a_schema_for_each_row() -> None:
    verifier = JsonSchema(column="schema")
    assert verifier.columns == ("schema",)
    assert [verifier("5", schema=s) for s in ({"type": "integer"}, '{"type": "string"}', True)] == [1.0, 0.0, 1.0]
    for schema, message in (
        (None, "must hold a schema, not a NoneType"),
        ("{", "is not JSON"),
        ({"type": 1}, "invalid schema"),
    ):
        with pytest.raises(ValueError, match=message):
            verifier("5", schema=schema)


def test_references_within_the_schema() -> None:
    assert [JsonSchema(schema=TREE)(text) for text in ("[[], [[]]]", "[[], [1]]")] == [1.0, 0.0]


@pytest.mark.parametrize(
    ("schema", "hostile", "other"),
    [
        ({"pattern": "^(a+)+$"}, '"' + "a" * 100 + '!"', '"aa"'),
        ({"patternProperties": {"^(a+)+$": True}}, '{"' + "a" * 100 + '!": 1}', '{"a": 1}'),
        ({"pattern": ".*;.*"}, '"' + "a" * 1_000_000 + '"', '"a;b"'),
    ],
)
def test_a_schema_that_takes_too_long_scores_0_for_its_sample_alone(
    schema: Any, hostile: str, other: str, group: Any
) -> None:
    reward = resolve_reward({"name": "json_schema", "schema": schema, "timeout_s": 1})
    started_s, computed_s = time.monotonic(), time.process_time()
    ((slow, *others),) = reward.score([group([hostile, *[other] * 20])])
    assert time.monotonic() - started_s < 20
    assert time.process_time() - computed_s < 1
    assert slow == Score(0.0, {"json_schema": 0.0}, timed_out=True, refused="json_schema: no answer within 1 s")
    assert [score.total for score in others] == [1.0] * 20


@pytest.mark.parametrize(("nested", "reward"), [(50, 1.0), (500, 0.0), (100_000, 0.0)])
def test_json_that_is_nested_too_deep_fulfils_nothing(nested: int, reward: float) -> None:
    assert JsonSchema(schema=TREE)("[" * nested + "]" * nested) == reward


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("#/$defs/none", "PointerToNowhere: '/$defs/none' does not exist"),
        ("#", "the schema cannot be used: RecursionError"),
    ],
)
def test_a_schema_whose_references_lead_nowhere_is_an_error_and_no_reward(reference: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        JsonSchema(schema={"$ref": reference})("1")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "give either schema"),
        ({"schema": PERSON, "column": "a"}, "give either schema"),
        ({"schema": {"type": "strin"}}, r"invalid schema: 'strin' is not valid .*\(at \$\.type\)"),
        ({"schema": {"items": {"$ref": "https://example.com/x.json"}}}, "external references are not fetched"),
        ({"schema": {"const": datetime.date(2026, 1, 1)}}, "the schema is not JSON: .* date is not JSON"),
        ({"schema": PERSON, "answer_from": "box"}, "'whole', 'fence' or 'tags'"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings: Any, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        JsonSchema(**settings)


def test_by_name_and_without_the_package(monkeypatch: pytest.MonkeyPatch, group: Any) -> None:
    spec = {"name": "json_schema", "schema": PERSON}
    ((good, bad),) = resolve_reward(spec).score([group([GOOD, "{}"])])
    assert (good.total, bad.total) == (1.0, 0.0)
    with pytest.raises(RewardError, match=r"unknown setting `scheme`\. Did you mean `schema`"):
        resolve_reward({"name": "json_schema", "scheme": PERSON})
    monkeypatch.setitem(sys.modules, "jsonschema.exceptions", None)
    with pytest.raises(RewardError, match=r'pip install "sharpen\[format\]"'):
        resolve_reward(spec)
