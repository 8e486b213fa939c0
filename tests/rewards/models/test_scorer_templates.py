"""Conversations are scored in the scorer's own chat template, as the reward models of the hub are used."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoModelForTokenClassification, AutoTokenizer, LlamaConfig

from sharpen.data.prompt_format import PromptFormat
from sharpen.data.prompts import load_prompts
from sharpen.data.rows import Rows
from sharpen.errors import RewardError
from sharpen.models.character_model import character_tokenizer
from sharpen.rewards import Reward, resolve_reward
from sharpen.types import Group, single_turn

ALPHABET = "0123456789+-=;#<>/ uas?\n"
# <u>1+1=</u> and, for the assistant, <a>2</a> and a line break; blanks around a turn are dropped.
TEMPLATE = (
    "{% for m in messages %}<{{ m['role'][0] }}>{{ m['content'] | trim }}</{{ m['role'][0] }}>\n{% endfor %}"
    "{% if add_generation_prompt %}<a>{% endif %}"
)
POLICY_TEMPLATE = TEMPLATE.replace("\n", " ")
CONVERSATION = [{"role": "user", "content": "1+1="}]
TEXTS = ["2", " 1;2;  3\n", "2;1"]


def tokenizer(template: str | None, alphabet: str = ALPHABET) -> Any:
    made = character_tokenizer(alphabet, context=128)
    made.chat_template = template
    return made


def hub_folder(path: Path, auto: Any, template: str | None) -> Path:
    """A randomly initialised model of one label, written by transformers alone, as those of the hub are."""
    own = tokenizer(template, ALPHABET[::-1])
    torch.manual_seed(3)
    config = LlamaConfig(
        vocab_size=len(own),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=128,
        initializer_range=0.5,
        num_labels=1,
        pad_token_id=own.pad_token_id,
        eos_token_id=own.eos_token_id,
        bos_token_id=None,
    )
    auto.from_config(config).save_pretrained(path)
    own.save_pretrained(path)
    return path


def group_of(policy: Any, texts: Sequence[str], *, chat: bool = True) -> Group:
    rows = Rows("rows", "rows", ("prompt",), [{"prompt": CONVERSATION if chat else "1+1="}])
    (prompt,) = load_prompts(rows, PromptFormat(policy, context_length=128), max_new_tokens=8).items
    completions = []
    for text in texts:
        ids = (*policy(text)["input_ids"], policy.eos_token_id)
        completions.append(single_turn(prompt.token_ids, ids, text))
    return Group(prompt, tuple(completions))


def reward_of(path: Path, policy: Any, name: str = "reward_model", **settings: Any) -> Reward:
    reward = resolve_reward({"name": name, "path": str(path), **settings})
    reward.use_tokenizer(policy)
    return reward


def as_on_the_hub(folder: Path, text: str, conversation: Sequence[Mapping[str, Any]] = CONVERSATION) -> float:
    """What a model card says to do."""
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    own = AutoTokenizer.from_pretrained(folder)
    ids = own.apply_chat_template(
        [*conversation, {"role": "assistant", "content": text}], return_tensors="pt", return_dict=True
    )["input_ids"]
    with torch.no_grad():
        return float(model(input_ids=ids).logits[0, 0])


def test_a_reward_model_of_the_hub_scores_as_its_card_says(tmp_path: Path) -> None:
    folder = hub_folder(tmp_path / "rm", AutoModelForSequenceClassification, TEMPLATE)
    policy = tokenizer(POLICY_TEMPLATE)
    (scores,) = reward_of(folder, policy).score([group_of(policy, TEXTS)])
    expected = [as_on_the_hub(folder, text) for text in TEXTS]
    assert len({round(value, 4) for value in expected}) == 3
    assert [score.total for score in scores] == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_a_system_message_belongs_to_the_conversation(tmp_path: Path) -> None:
    folder = hub_folder(tmp_path / "rm", AutoModelForSequenceClassification, TEMPLATE)
    policy = tokenizer(POLICY_TEMPLATE)
    rows = Rows("rows", "rows", ("prompt",), [{"prompt": "1+1="}])
    format = PromptFormat(policy, context_length=128, chat=True, system="su")
    (prompt,) = load_prompts(rows, format, max_new_tokens=8).items
    group = Group(prompt, group_of(policy, ["2"]).trajectories)
    ((score,),) = reward_of(folder, policy).score([group])
    system = {"role": "system", "content": "su"}
    assert prompt.messages == (system, *CONVERSATION)
    assert score.total == pytest.approx(as_on_the_hub(folder, "2", [system, *CONVERSATION]), rel=1e-4, abs=1e-6)


def test_whose_template_is_used(tmp_path: Path) -> None:
    """The own tokens are scored where vocabulary and template are the policy's, or where the recipe says so."""
    own = tokenizer(TEMPLATE, ALPHABET[::-1])
    folder = hub_folder(tmp_path / "rm", AutoModelForSequenceClassification, TEMPLATE)
    group = group_of(own, ["2;1"])
    rendered = pytest.approx(as_on_the_hub(folder, "2;1"), rel=1e-4, abs=1e-6)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    with torch.no_grad():
        ids = torch.tensor([[*group.prompt.token_ids, *group.trajectories[0].token_ids]])
        as_written = pytest.approx(float(model(input_ids=ids).logits[0, 0]), rel=1e-4, abs=1e-6)

    def total(policy: Any, **settings: Any) -> float | None:
        ((score,),) = reward_of(folder, policy, **settings).score([group])
        return score.total

    assert total(own) == as_written
    assert total(own, template="policy") == as_written
    assert total(own, template="scorer") == rendered
    other = tokenizer(POLICY_TEMPLATE, ALPHABET[::-1])
    assert total(other) == rendered
    assert total(other, template="policy") == as_written


def test_a_process_reward_model_reads_each_step_at_its_end(tmp_path: Path) -> None:
    folder = hub_folder(tmp_path / "prm", AutoModelForTokenClassification, TEMPLATE)
    policy = tokenizer(POLICY_TEMPLATE)
    reward = reward_of(folder, policy, "process_reward_model", separator=";")
    (scores,) = reward.score([group_of(policy, TEXTS)])
    model = AutoModelForTokenClassification.from_pretrained(folder).eval()
    # After <u>1+1=</u>, a line break and <a> there are 15 characters; the last step ends at the < of </a>.
    for score, text, places in zip(scores, ["2", "1;2;  3", "2;1"], [[16], [16, 18, 22], [16, 18]], strict=True):
        ids = AutoTokenizer.from_pretrained(folder)(f"<u>1+1=</u>\n<a>{text}</a>\n")["input_ids"]
        with torch.no_grad():
            values = model(input_ids=torch.tensor([ids])).logits[0, places, 0].sigmoid().tolist()
        assert [step.value for step in score.steps] == pytest.approx(values, rel=1e-4)
        assert score.total == pytest.approx(min(values), rel=1e-4)
    # Told in the policy's tokens: one for each character, and the end.
    assert [[step.position for step in score.steps] for score in scores] == [[1], [2, 4, 9], [1, 3]]


def test_a_text_that_the_template_changes_has_no_steps_to_read(tmp_path: Path) -> None:
    changing = TEMPLATE.replace("| trim", "| replace(';;', ';')")
    folder = hub_folder(tmp_path / "prm", AutoModelForTokenClassification, changing)
    policy = tokenizer(POLICY_TEMPLATE)
    reward = reward_of(folder, policy, "process_reward_model", separator=";")
    (scores,) = reward.score([group_of(policy, ["1;2", "1;;2"])])
    assert scores[0].error is None
    assert "changed by the scorer's chat template" in str(scores[1].error)


def test_what_cannot_be_rendered_is_an_error(tmp_path: Path) -> None:
    folder = hub_folder(tmp_path / "rm", AutoModelForSequenceClassification, None)
    policy = tokenizer(POLICY_TEMPLATE)
    with pytest.raises(RewardError, match=r"template is scorer, but .*rm has no chat template"):
        reward_of(folder, policy, template="scorer")
    ((score,),) = reward_of(folder, policy).score([group_of(policy, ["2"])])
    assert score.error is None
    templated = hub_folder(tmp_path / "rm2", AutoModelForSequenceClassification, TEMPLATE)
    with pytest.raises(RewardError, match="prompt 'rows:1' is not a conversation"):
        reward_of(templated, policy, template="scorer").score([group_of(policy, ["2"], chat=False)])
    refusing = hub_folder(tmp_path / "rm3", AutoModelForSequenceClassification, "{{ raise_exception('no user') }}")
    with pytest.raises(
        RewardError, match="prompt 'rows:1': the scorer's chat template rejects every conversation: no user"
    ):
        reward_of(refusing, policy).score([group_of(policy, ["2"])])


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        # A template that knows users and assistants alone, and one that cannot add a number to a text.
        (
            TEMPLATE.replace("<{{", "{% if m['role'] == 'tool' %}{{ 1 + 'x' }}{% endif %}<{{"),
            r"rejects .* \(tool\): TypeE",
        ),
        (
            TEMPLATE.replace("<{{", "{% if m['role'] != 'tool' %}<{{").replace("{% endfor", "{% endif %}{% endfor"),
            r"leaves out the content of message 3 \(tool\)",
        ),
    ],
)
def test_what_a_tool_said_is_read_or_the_prompt_is_named(tmp_path: Path, changed: str, complaint: str) -> None:
    folder = hub_folder(tmp_path / "rm", AutoModelForSequenceClassification, changed)
    policy = tokenizer(POLICY_TEMPLATE)
    group = group_of(policy, ["2"])
    said = [
        {"role": "assistant", "content": "1"},
        {"role": "tool", "content": "u"},
        {"role": "assistant", "content": "2"},
    ]
    turns = Group(group.prompt, tuple(replace(t, messages=tuple(said)) for t in group.trajectories))
    with pytest.raises(RewardError, match=f"^prompt 'rows:1': the scorer's chat template {complaint}"):
        reward_of(folder, policy).score([turns])
    told = hub_folder(tmp_path / "rm2", AutoModelForSequenceClassification, TEMPLATE)
    ((score,),) = reward_of(told, policy).score([turns])
    assert score.total == pytest.approx(as_on_the_hub(told, "2", [*CONVERSATION, *said[:2]]), rel=1e-4, abs=1e-6)


def test_a_prompt_of_parts_and_the_tools_of_its_row_reach_the_scorer(tmp_path: Path) -> None:
    folder = hub_folder(
        tmp_path / "rm",
        AutoModelForSequenceClassification,
        "{% for t in tools or [] %}{{ t.function.name }};{% endfor %}" + TEMPLATE,
    )
    policy = tokenizer("{% for t in tools or [] %}{{ t.function.name }}{% endfor %}" + POLICY_TEMPLATE)
    parts = [{"type": "text", "text": "1+"}, {"type": "text", "text": "1="}]
    row = {"prompt": [{"role": "user", "content": parts}], "tools": [{"name": "a", "parameters": {}}]}
    rows = Rows("rows", "rows", tuple(row), [row])
    (prompt,) = load_prompts(rows, PromptFormat(policy, context_length=128), max_new_tokens=8).items
    assert prompt.messages == tuple(CONVERSATION)
    ((score,),) = reward_of(folder, policy).score([Group(prompt, group_of(policy, ["2"]).trajectories)])
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    ids = AutoTokenizer.from_pretrained(folder)("a;<u>1+1=</u>\n<a>2</a>\n", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        assert score.total == pytest.approx(float(model(input_ids=ids).logits[0, 0]), rel=1e-4, abs=1e-6)
