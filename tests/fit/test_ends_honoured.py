"""The end that a template writes stops sampling, is saved, and stops servers; a model without it writes on for ever."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from chain_models import chain_folder
from families import FAMILIES, Rejected, said
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


@pytest.mark.parametrize("name", FAMILIES)
def test_a_trained_model_stops_where_its_template_ends_a_turn(name: str, tmp_path: Path) -> None:
    family = FAMILIES[name]
    tokenizer = family.tokenizer(name)
    # Whatever it is asked, the model answers one token, ends the turn, and without being stopped answers again.
    [answer] = tokenizer.convert_tokens_to_ids(tokenizer.tokenize(ANSWER)[-1:])
    end = tokenizer.convert_tokens_to_ids(family.ends[0])
    declared = [i for i in map(tokenizer.get_vocab().get, family.stops) if i is not None]
    base = chain_folder(tmp_path / "base", tokenizer, {answer: end}, answer, declared)
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
