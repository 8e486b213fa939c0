"""The end that a template writes stops sampling, is saved, and stops servers; a model without it writes on for ever."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from chain_models import chain_folder
from families import FAMILIES
from family import Rejected, said
from transformers import AutoModelForCausalLM, AutoTokenizer

import sharpen
from sharpen.types import Finish

ANSWER = "yes"
THOUGHT = f"<think>\n{ANSWER}\n</think>\n\n{ANSWER}"
PROMPT = [said("user", "hi")]
UNCHANGED = {
    "quiet": True,
    "training": {"steps": 1, "prompts_per_step": 1},
    "optimizer": {"learning_rate": 1e-12, "schedule": "constant", "warmup_steps": 0},
    "evaluation": {"every": 0},
}


def folder_of(name: str, path: Path) -> tuple[Path, int, int]:
    """A family's model, its answer and the end of its turns.

    Whatever it is asked, it answers one token, ends the turn, and without being stopped answers again.
    """
    family = FAMILIES[name]
    tokenizer = family.tokenizer(name)
    [answer] = tokenizer.convert_tokens_to_ids(tokenizer.tokenize(ANSWER)[-1:])
    end = int(tokenizer.convert_tokens_to_ids(family.ends[0]))
    declared = [i for i in map(tokenizer.get_vocab().get, family.stops) if i is not None]
    return chain_folder(path / "base", tokenizer, {answer: end}, answer, declared), int(answer), end


@pytest.mark.parametrize("name", FAMILIES)
def test_a_trained_model_stops_where_its_template_ends_a_turn(name: str, tmp_path: Path) -> None:
    family = FAMILIES[name]
    base, answer, end = folder_of(name, tmp_path)
    declared = json.loads((base / "generation_config.json").read_text())["eos_token_id"]
    thinks = not isinstance(family.expected.get("thinking"), Rejected)
    data = {"chat_template_kwargs": dict(family.arguments)}
    row = {"prompt": PROMPT, "completion": [said("assistant", THOUGHT if thinks else ANSWER)]}
    run = sharpen.train(base, "sft", [row], run=tmp_path / "run", data=data, **UNCHANGED)
    assert run.checkpoint is not None

    with sharpen.load(run.checkpoint, device="cpu") as model:
        [found] = model.generate([PROMPT], sharpen.Sampling(6, temperature=0.0))
    assert (found.token_ids, found.finish) == ((answer, end), Finish.EOS)

    saved = json.loads((run.checkpoint / "generation_config.json").read_text())["eos_token_id"]
    assert {end, *declared} <= set(saved)
    served = AutoModelForCausalLM.from_pretrained(run.checkpoint)
    own = AutoTokenizer.from_pretrained(run.checkpoint)
    content = [{"type": "text", "text": "hi"}] if name == "smolvlm" else "hi"
    ids = own.apply_chat_template(
        [said("user", content)], add_generation_prompt=True, return_dict=False, return_tensors="pt", **family.arguments
    )
    written = served.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=6, do_sample=False)
    assert written[0, ids.shape[1] :].tolist() == [answer, end]


METHODS = {
    "sft": ({"prompt": PROMPT, "completion": [said("assistant", ANSWER)]}, {}),
    "dpo": ({"prompt": PROMPT, "chosen": [said("assistant", ANSWER)], "rejected": [said("assistant", "no")]}, {}),
    "grpo": ({"prompt": PROMPT, "answer": ANSWER}, {"reward": "exact_answer", "rollout": {"max_new_tokens": 6}}),
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["qwen2_5", "glm4_5", "alpaca"])
def test_every_method_learns_and_saves_the_end(name: str, method: str, tmp_path: Path) -> None:
    base, _, end = folder_of(name, tmp_path)
    row, settings = METHODS[method]
    run = sharpen.train(base, method, [row], run=tmp_path / "run", **{**UNCHANGED, **settings})
    assert run.checkpoint is not None
    assert end in json.loads((run.checkpoint / "generation_config.json").read_text())["eos_token_id"]
    if method == "grpo":
        measured = run.metrics[["truncated", "length/max", "reward/mean"]].iloc[0]
        assert tuple(measured) == (0.0, 2.0, 1.0)


def test_plain_texts_end_with_the_end_of_sequence_alone(tmp_path: Path) -> None:
    base, _, end = folder_of("qwen2_5", tmp_path)
    rows = [{"prompt": "hi", "answer": ANSWER}]
    settings = {**UNCHANGED, "reward": "exact_answer", "rollout": {"max_new_tokens": 6}}
    run = sharpen.train(base, "grpo", rows, run=tmp_path / "run", **settings)
    assert run.checkpoint is not None
    assert end not in json.loads((run.checkpoint / "generation_config.json").read_text())["eos_token_id"]
    assert tuple(run.metrics[["truncated", "length/max"]].iloc[0]) == (1.0, 6.0)
