from pathlib import Path
from typing import Any

import pytest

from sharpen.errors import RewardError
from sharpen.rewards import FunctionReward, WeightedSum, describe_rewards, resolve_reward
from sharpen.rewards.math.verifier import Math
from sharpen.rewards.text.verifiers import ExactAnswer

MODULE = '''
from sharpen.rewards.verifier import Verifier

NUMBER = 3

class Starts:
    def __init__(self, with_):
        self.with_ = with_

    def __call__(self, completion):
        return completion.startswith(self.with_)

def short(completion, limit=5):
    return len(completion) <= limit

class Vowels(Verifier):
    """Counts vowels."""
    name = "vowels"
    letters: str = "aeiou"

    def __call__(self, completion, **row):
        return sum(c in self.letters for c in completion)
'''


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "my_rewards.py"
    path.write_text(MODULE)
    return path


def total(spec: Any, group: Any, text: str = "abc", **row: Any) -> float | None:
    (scores,) = resolve_reward(spec).score([group([text], **row)])
    result: float | None = scores[0].total
    return result


def test_names_carry_a_description() -> None:
    described = describe_rewards()
    verifiers = ["exact_answer", "contains", "regex", "tags", "math", "json_schema", "language", "repetition"]
    code = ["code_tests", "code_check", "code_asserts", "code_compiles", "code_lint"]
    models = ["steps", "reward_model", "process_reward_model", "soft_overlong"]
    assert list(described) == [*verifiers, *code, *models]
    assert all(description.endswith(".") for description in described.values())


def test_a_name_and_a_mapping_of_settings() -> None:
    reward = resolve_reward("math")
    assert isinstance(reward, FunctionReward)
    assert (reward.name, reward.function, reward.has_answer) == ("math", Math(), True)
    reward = resolve_reward({"name": "exact_answer", "column": "gold"})
    assert isinstance(reward, FunctionReward)
    assert reward.function == ExactAnswer(column="gold")
    with pytest.raises(RewardError, match="'exact_answer' needs the column 'gold', which rows"):
        reward.check_columns(["prompt", "text"], "rows")


def test_a_function_or_reward_is_taken_as_it_is(group: Any) -> None:
    assert total(len, group) == 3.0
    reward = resolve_reward("math")
    assert resolve_reward(reward) is reward


def test_weights_and_lists(group: Any) -> None:
    assert total({"name": "regex", "pattern": "abc", "weight": 0.5}, group) == 0.5
    spec = [{"name": "exact_answer", "weight": 2}, {"name": "regex", "pattern": "a.*", "weight": 0.1}, len]
    reward = resolve_reward(spec)
    assert isinstance(reward, WeightedSum)
    assert reward.names == ("exact_answer", "regex", "len")
    assert total(spec, group, answer="ABC") == pytest.approx(2 + 0.1 + 3)


def test_a_file(file: Path, group: Any) -> None:
    assert total(f"{file}:short", group) == 1.0
    assert total({"name": f"{file}:short", "limit": 2}, group) == 0.0
    assert total({"name": f"{file}:Vowels", "letters": "abc"}, group) == 3.0
    assert total({"name": f"{file}:Starts", "with_": "a"}, group) == 1.0
    assert total({"name": f"{file}:Starts", "with_": "b"}, group) == 0.0


def test_a_module_beside_the_user(file: Path, group: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(file.parent)
    assert total("my_rewards:short", group) == 1.0


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("exact_anwser", "unknown reward `exact_anwser`. Did you mean `exact_answer`"),
        ("no.such.module:f", "importing 'no.such.module' failed with ModuleNotFoundError"),
        ("/no/such/file.py:f", "importing '/no/such/file.py' failed with FileNotFoundError"),
        ({"name": "math", "colum": "a"}, "reward 'math': unknown setting `colum`. Did you mean `column`"),
        ({"name": "math", "timeout_s": -1}, "`timeout_s`: Input should be greater than 0"),
        ({"name": "regex"}, "reward 'regex': `pattern`: Field required"),
        ({"name": "math", "weight": "1"}, "reward 'math': `weight`: Input should be a valid number"),
        ({"weight": 1}, "a reward needs a name"),
        ([], "list of rewards is empty"),
        (3, "a reward is a function, a name"),
        ([3], "a reward is a function, a name"),
    ],
)
def test_errors_name_what_is_wrong(spec: Any, message: str) -> None:
    with pytest.raises(RewardError) as caught:
        resolve_reward(spec)
    assert message in str(caught.value)


def test_errors_of_a_file(file: Path, tmp_path: Path) -> None:
    with pytest.raises(RewardError, match=r"has no 'shor'\. Did you mean `short`"):
        resolve_reward(f"{file}:shor")
    with pytest.raises(RewardError, match="is a int, not a function"):
        resolve_reward(f"{file}:NUMBER")
    with pytest.raises(RewardError, match="takes no setting 'limits'"):
        resolve_reward({"name": f"{file}:short", "limits": 2})
    with pytest.raises(RewardError, match=r"'Starts' cannot be constructed with these settings: missing .* 'with_'"):
        resolve_reward(f"{file}:Starts")
    with pytest.raises(RewardError, match=r"call\.process requires a function"):
        resolve_reward({"name": f"{file}:Starts", "with_": "a", "call": {"process": True}})
    broken = tmp_path / "broken.py"
    broken.write_text("def f(:")
    with pytest.raises(RewardError, match="failed with SyntaxError"):
        resolve_reward(f"{broken}:f")
