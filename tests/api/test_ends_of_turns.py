"""A model whose chat template ends turns with a token that the model does not declare, as Qwen2.5's base does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import sharpen
from sharpen.types import Finish
from tiny_models import ALPHABET, tiny_folder

TEMPLATE = "{% for m in messages %}#{{ m.content }};{% endfor %}{% if add_generation_prompt %}#{% endif %}"
END = ALPHABET.index(";") + 3
ROWS = [
    {"messages": [{"role": "user", "content": f"{a}+{a}"}, {"role": "assistant", "content": f"{2 * a}"}]}
    for a in range(5)
]
SETTINGS = {
    "quiet": True,
    "training": {"steps": 60, "prompts_per_step": 5},
    "optimizer": {"learning_rate": 1e-2, "schedule": "constant", "warmup_steps": 0},
    "evaluation": {"every": 0},
}


def with_template(folder: Path, template: str = TEMPLATE) -> Path:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_special_tokens({"additional_special_tokens": ["#", ";"]})
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return with_template(tiny_folder(tmp_path_factory.mktemp("ends") / "model", spread=0.1))


@pytest.fixture(scope="module")
def trained(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = sharpen.train(base, "sft", ROWS, run=tmp_path_factory.mktemp("ends") / "run", **SETTINGS)
    assert run.checkpoint is not None
    return run.checkpoint


def test_sampling_stops_where_turns_end(trained: Path) -> None:
    with sharpen.load(trained, device="cpu") as model:
        [found] = model.generate([ROWS[3]["messages"][:1]], sharpen.Sampling(8, temperature=0.0))
    assert (found.text, found.token_ids[-1], found.finish) == ("6", END, Finish.EOS)
    assert len(found.token_ids) == 2


def test_a_chat_stops_too(trained: Path) -> None:
    with sharpen.load(trained, device="cpu") as model:
        assert model.reply("3+3", sharpen.Sampling(8, temperature=0.0)) == "6"


def test_the_base_alone_knows_the_end_by_its_template(base: Path) -> None:
    with sharpen.load(base, device="cpu", chat=True) as model:
        completions = model.generate("1+1", sharpen.Sampling(60), n=8)
    assert any(found.finish is Finish.EOS and found.token_ids[-1] == END for found in completions)
    assert all(END not in found.token_ids[:-1] for found in completions)


def test_plain_text_prompts_do_not_end_there(base: Path) -> None:
    with sharpen.load(base, device="cpu") as model:
        completions = model.generate("1+1", sharpen.Sampling(60), n=8)
    assert any(END in found.token_ids[:-1] for found in completions)


def test_servers_stop_there(trained: Path) -> None:
    assert json.loads((trained / "generation_config.json").read_text())["eos_token_id"] == [1, END]
    model = AutoModelForCausalLM.from_pretrained(trained)
    tokenizer = AutoTokenizer.from_pretrained(trained)
    text = tokenizer.apply_chat_template(ROWS[3]["messages"][:1], add_generation_prompt=True, tokenize=False)
    ids = torch.tensor([tokenizer(text, add_special_tokens=False)["input_ids"]])
    written = model.generate(ids, max_new_tokens=8, do_sample=False)[0, ids.shape[1] :]
    assert tokenizer.decode(written, skip_special_tokens=False) == "6;"
    assert len(written) == 2


def test_completions_that_end_there_are_not_truncated(trained: Path, tmp_path: Path) -> None:
    rows = [{"prompt": row["messages"][:1], "answer": row["messages"][1]["content"]} for row in ROWS]
    found = sharpen.evaluate(trained, rows, "exact_answer", n=1, temperature=0.0, max_new_tokens=8, device="cpu")
    assert (found.measures["truncated"].mean, found.measures["length"].mean) == (0.0, 2.0)


def test_an_end_that_is_no_token_is_said_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = with_template(tiny_folder(tmp_path / "model"), TEMPLATE.replace(";", "<|im_end|>"))
    sharpen.train(
        folder,
        "sft",
        ROWS,
        held_out=ROWS,
        run=tmp_path / "run",
        training={"steps": 1, "prompts_per_step": 5},
        optimizer={"warmup_steps": 0},
    )
    said = " ".join(capsys.readouterr().err.split())
    assert said.count("ends the assistant's turn with '<|im_end|>', which is no special token") == 1
