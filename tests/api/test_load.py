"""A loaded model generates what training samples, and gives the log-probabilities and scores of transformers."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoModelForTokenClassification

import sharpen
from api_runs import ROWS, SMALL, digit_model, first_digit
from sharpen.errors import DataError, ModelError, RecipeError
from sharpen.models.character_model import character_tokenizer

ALPHABET = "0123456789+="
IDS = {c: i + 3 for i, c in enumerate(ALPHABET)}
EOS = 1


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return digit_model(tmp_path_factory.mktemp("load") / "model")


@pytest.fixture(scope="module")
def run(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> sharpen.Run:
    path = tmp_path_factory.mktemp("run") / "run"
    return sharpen.train(folder, sharpen.GRPO(group_size=4), ROWS, reward=first_digit, run=path, quiet=True, **SMALL)


def own_logprobs(folder: Path, prompt: list[int], completion: list[int], temperature: float = 1.0) -> list[float]:
    model = AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        logits = model(torch.tensor([prompt + completion])).logits[0, len(prompt) - 1 : -1]
    found = (logits / temperature).log_softmax(-1)
    return found[torch.arange(len(completion)), torch.tensor(completion)].tolist()


def test_completions_have_the_log_probabilities_of_transformers(folder: Path) -> None:
    with sharpen.load(folder) as model:
        assert model.kind == "policy"
        found = model.generate(["1+1=", "2+3="], sharpen.Sampling(6, temperature=0.7), n=3, seed=5)
        assert [completion.prompt for completion in found] == ["1+1="] * 3 + ["2+3="] * 3
        for completion in found:
            prompt = [IDS[c] for c in completion.prompt]
            expected = own_logprobs(folder, prompt, list(completion.token_ids), 0.7)
            assert completion.logprobs == pytest.approx(expected, abs=1e-5)
            again = model.logprobs(completion.prompt, completion, temperature=0.7)
            assert again == pytest.approx(completion.logprobs, abs=1e-5)
            assert len(completion.token_ids) == 6 or completion.finish == "eos"
        # A completion follows from the seed, its number and its prompt alone.
        [first] = model.generate("1+1=", sharpen.Sampling(6, temperature=0.7), seed=5)
        assert first.token_ids == found[0].token_ids
        assert model.generate("1+1=", sharpen.Sampling(6, temperature=0.7), seed=6, n=3) != found[:3]
        [greedy] = model.generate("1+1=", sharpen.Sampling(1, temperature=0))
        logits = AutoModelForCausalLM.from_pretrained(folder)(torch.tensor([[IDS[c] for c in "1+1="]])).logits[0, -1]
        assert greedy.token_ids == (int(logits.argmax()),)


def test_the_log_probabilities_of_a_text_include_the_token_that_ends_it(folder: Path) -> None:
    with sharpen.load(folder) as model:
        expected = own_logprobs(folder, [IDS[c] for c in "1+1="], [IDS["2"], EOS])
        assert model.logprobs("1+1=", "2") == pytest.approx(expected, abs=1e-5)


def test_a_conversation_uses_the_chat_template(folder: Path, tmp_path: Path) -> None:
    chatty = tmp_path / "model"
    shutil.copytree(folder, chatty)
    (chatty / "chat_template.jinja").write_text(
        "{% for m in messages %}={{ m['content'] }}={% endfor %}{% if add_generation_prompt %}+{% endif %}"
    )
    sampling = sharpen.Sampling(3, temperature=0)
    with sharpen.load(chatty, system="9") as model:
        [of_messages] = model.generate([{"role": "user", "content": "1"}], sampling)
        assert of_messages.prompt == "=9==1=+"
        assert model.reply("1", sampling) == of_messages.text
        chat = model.chat(sampling)
        assert chat.reply("1").text == of_messages.text
        chat.reply("2")
        assert [m["role"] for m in chat.messages] == ["user", "assistant", "user", "assistant"]
    with sharpen.load(folder) as model:
        assert model.generate("=9==1=+", sampling)[0].text == of_messages.text
    with sharpen.load(chatty, chat=True) as model:
        assert model.generate("1", sampling)[0].prompt == "=1=+"


def test_a_run_brings_its_settings_and_its_latest_checkpoint(run: sharpen.Run, folder: Path) -> None:
    with sharpen.load(run.path) as model, sharpen.load(run.model) as named:
        assert model.path == named.path == str(run.model)
        assert model.sampling == named.sampling == sharpen.Sampling(4)
        assert [c.token_ids for c in model.generate("1+1=", n=4)] == [c.token_ids for c in named.generate("1+1=", n=4)]
        prompt, completion = [IDS[c] for c in "1+1="], [IDS["2"], EOS]
        assert model.logprobs("1+1=", "2") == pytest.approx(own_logprobs(run.model, prompt, completion), abs=1e-5)


def scorer(folder: Path, kind: type, labels: int = 1) -> Path:
    """The digit model with a random head."""
    base = AutoModelForCausalLM.from_pretrained(digit_model(folder / "base"))
    config = base.config
    config.num_labels = labels
    torch.manual_seed(0)
    model = kind.from_config(config)
    model.save_pretrained(folder / "scorer")
    character_tokenizer(ALPHABET, context=32).save_pretrained(folder / "scorer")
    return folder / "scorer"


def test_a_reward_model_gives_the_scores_of_transformers(tmp_path: Path) -> None:
    folder = scorer(tmp_path, AutoModelForSequenceClassification)
    ids = [IDS[c] for c in "1+1=2"] + [EOS]
    with torch.no_grad():
        expected = AutoModelForSequenceClassification.from_pretrained(folder)(torch.tensor([ids])).logits.item()
    with sharpen.load(folder) as model:
        assert model.kind == "reward_model"
        assert model.score("1+1=", "2") == pytest.approx(expected, abs=1e-5)
        with pytest.raises(ModelError, match=r"gives scores and no text: use score\(\)"):
            model.generate("1+1=")
        with pytest.raises(ModelError, match=r"scores whole completions: use score\(\)"):
            model.step_scores("1+1=", "2")


def test_a_process_reward_model_gives_a_score_for_each_step(tmp_path: Path) -> None:
    folder = scorer(tmp_path, AutoModelForTokenClassification)
    ids = [IDS[c] for c in "1+1=2+3"] + [EOS]
    with torch.no_grad():
        logits = AutoModelForTokenClassification.from_pretrained(folder)(torch.tensor([ids])).logits[0, :, 0]
    # The steps of "2+3" end at "+" and at the end-of-sequence token.
    expected = [logits[5].sigmoid().item(), logits[7].sigmoid().item()]
    with sharpen.load(folder, step_separator="+") as model:
        assert model.step_scores("1+1=", "2+3") == pytest.approx(expected, abs=1e-5)
        assert model.score("1+1=", "2+3") == pytest.approx(min(expected), abs=1e-5)
    with pytest.raises(RecipeError, match="give step_separator"):
        sharpen.load(folder)


def test_what_cannot_be_used_is_named(folder: Path) -> None:
    model = sharpen.load(folder)
    with pytest.raises(DataError, match="prompts, row 2: column `prompt` gives a prompt without a token"):
        model.generate(["1", ""])
    with pytest.raises(DataError, match="prompts, row 1: does not fit into the context of 32 tokens"):
        model.generate("1" * 30, sharpen.Sampling(4))
    with pytest.raises(RecipeError, match="n is at least 1, not 0"):
        model.generate("1", n=0)
    with pytest.raises(RecipeError, match="temperature is 0 or more, not -1"):
        sharpen.Sampling(4, temperature=-1)
    with pytest.raises(ModelError, match=r"a language model has no scores: use logprobs\(\)"):
        model.score("1", "2")
    assert "policy" in repr(model)
    model.close()
    with pytest.raises(ModelError, match="has been closed"):
        model.generate("1")
    with pytest.raises(ModelError, match="no such folder"):
        sharpen.load("./nowhere")


def test_a_reply_to_a_list_of_messages_is_refused(folder: Path) -> None:
    asked = [{"role": "user", "content": "1+1="}]
    with sharpen.load(folder) as model:
        for reply in (model.reply, model.chat().reply):
            with pytest.raises(DataError, match=r"reply\(\) takes the text of one message, not list .*to generate\(\)"):
                reply(asked)
