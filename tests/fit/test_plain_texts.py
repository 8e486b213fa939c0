"""Tokenizers × methods, for plain texts: a completion goes on with its prompt and ends with the end of sequence."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from chain_models import chain_folder
from trained_tokenizers import MAKES, make_tokenizer, marked, spelled
from transformers import AutoModelForSequenceClassification, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

import sharpen
from sharpen.data.demonstrations import load_demonstrations
from sharpen.data.preferences import load_preferences
from sharpen.data.prompt_format import PromptFormat
from sharpen.data.prompts import load_prompts
from sharpen.data.rows import read_rows
from sharpen.data.steps import load_steps
from sharpen.errors import DataError
from sharpen.models.progress_bars import without_progress_bars
from sharpen.models.scorer import load_scorer
from sharpen.rewards import resolve_reward
from sharpen.types import Finish, Group, Prompt, single_turn

by_make = pytest.mark.parametrize("make", MAKES)


def tokenizer_of(make: str) -> PreTrainedTokenizerFast:
    return make_tokenizer(make, special=("<think>",), bos="<s>", begins_with_bos=True)


def format_of(tokenizer: PreTrainedTokenizerFast) -> PromptFormat:
    return PromptFormat(tokenizer, context_length=64)


def texts_of(group: Group, tokenizer: PreTrainedTokenizerFast) -> list[str]:
    """The blank that SentencePiece puts after BOS is none of the text."""
    return [marked(tokenizer, trajectory.last).replace("<s> ", "<s>") for trajectory in group.trajectories]


@by_make
def test_demonstrations(make: str) -> None:
    tokenizer = tokenizer_of(make)
    row = {"prompt": "47+85=", "completion": "132"}
    [group] = load_demonstrations(read_rows([row]), format_of(tokenizer)).items
    assert texts_of(group, tokenizer) == ["<s>47+85=«132</s>»"]


@by_make
def test_a_blank_of_the_text_stays(make: str) -> None:
    tokenizer = tokenizer_of(make)
    row = {"prompt": "why", "completion": " yes no"}
    [group] = load_demonstrations(read_rows([row]), format_of(tokenizer)).items
    expected = "<s>why« yes no</s>»"
    assert texts_of(group, tokenizer) == ["".join(expected.split()) if make == "wordpiece" else expected]


@by_make
def test_preferences(make: str) -> None:
    tokenizer = tokenizer_of(make)
    row = {"prompt": "47+85=", "chosen": "132", "rejected": "133"}
    [group] = load_preferences(read_rows([row]), format_of(tokenizer)).items
    assert texts_of(group, tokenizer) == ["<s>47+85=«132</s>»", "<s>47+85=«133</s>»"]


@by_make
def test_marked_steps(make: str) -> None:
    tokenizer = tokenizer_of(make)
    row = {"prompt": "47+85=", "steps": ["130+2=", "132"], "labels": [1, 0]}
    if make == "wordpiece":
        with pytest.raises(DataError, match=r"row 1: the tokenizer .* changes the completion's text"):
            load_steps(read_rows([row]), format_of(tokenizer), separator=None)
        return
    [group] = load_steps(read_rows([row]), format_of(tokenizer), separator=None).items
    assert texts_of(group, tokenizer) == ["<s>47+85=«130+2=132</s>»"]
    (trajectory,), (score,) = group.trajectories, group.scores
    written = b"".join(spelled(tokenizer, trajectory.token_ids)[: score.steps[0].position + 1])
    assert written.strip() == b"130+2="
    assert [step.position for step in score.steps][1] == len(trajectory.token_ids) - 1


@by_make
def test_prompts_are_those_of_demonstrations_and_have_one_bos(make: str) -> None:
    tokenizer = tokenizer_of(make)
    rows = read_rows([{"prompt": "47+85="}, {"prompt": "<s>47+85="}])
    for prompt in load_prompts(rows, format_of(tokenizer), max_new_tokens=4).items:
        text = b"".join(spelled(tokenizer, prompt.token_ids)).decode()
        assert text.replace("<s> ", "<s>") == "<s>47+85="


@by_make
def test_special_tokens_are_text_and_ends_are_not(make: str, tmp_path: Path) -> None:
    tokenizer = tokenizer_of(make)
    think, end = tokenizer.convert_tokens_to_ids(["<think>", "</s>"])
    [answer] = tokenizer.convert_tokens_to_ids(tokenizer.tokenize("yes")[-1:])
    folder = chain_folder(tmp_path / "model", tokenizer, {think: answer, answer: end}, think, [end])
    with sharpen.load(folder, device="cpu") as model:
        [found] = model.generate("47+85=", sharpen.Sampling(6, temperature=0.0))
    assert (found.token_ids, found.finish) == ((think, answer, end), Finish.EOS)
    shown = str(tokenizer.convert_ids_to_tokens(answer)).removeprefix("▁")
    assert found.text.replace(" ", "") == f"<think>{shown}"


@by_make
def test_a_stop_string_may_be_a_special_token(make: str, tmp_path: Path) -> None:
    tokenizer = tokenizer_of(make)
    think, end = tokenizer.convert_tokens_to_ids(["<think>", "</s>"])
    [answer] = tokenizer.convert_tokens_to_ids(tokenizer.tokenize("yes")[-1:])
    folder = chain_folder(tmp_path / "model", tokenizer, {answer: think}, answer, [end])
    with sharpen.load(folder, device="cpu") as model:
        [found] = model.generate("47+85=", sharpen.Sampling(6, temperature=0.0, stop=("<think>",)))
    assert (found.token_ids, found.finish) == ((answer, think), Finish.STOP)


@by_make
def test_a_reward_model_reads_the_text_as_one(make: str, tmp_path: Path) -> None:
    """The policy has another vocabulary; the scorer's tokens are those of the whole text, which has no blank."""
    tokenizer, policy = tokenizer_of(make), make_tokenizer("unigram" if make == "byte_level" else "byte_level")
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    torch.manual_seed(0)
    base = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), initializer_range=0.5, **sizes))
    with without_progress_bars():
        base.save_pretrained(tmp_path / "base")
        tokenizer.save_pretrained(tmp_path / "base")
        scorer = load_scorer(tmp_path / "base", kind="sequence", device="cpu")
        with torch.no_grad():
            scorer.head.weight.normal_()
        scorer.save(tmp_path / "scorer")
        model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "scorer").eval()
    reward = resolve_reward({"name": "reward_model", "path": str(tmp_path / "scorer")})
    reward.use_tokenizer(policy)
    ids = (*policy("132")["input_ids"], policy.eos_token_id)
    prompt = Prompt("p", tuple(policy("47+85=")["input_ids"]), "47+85=", {"prompt": "47+85="})
    [[score]] = reward.score([Group(prompt, (single_turn(prompt.token_ids, ids, "132"),))])
    whole = [*tokenizer("47+85=132")["input_ids"], tokenizer.eos_token_id]
    with torch.no_grad():
        expected = model(input_ids=torch.tensor([whole])).logits.item()
    assert score.total == pytest.approx(expected, rel=1e-4)
