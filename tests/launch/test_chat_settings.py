"""The chat template that the settings name, and the date that templates write: both belong to the run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from datetime import date, datetime
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

import sharpen
from sharpen.data.chat.dates import date_written
from sharpen.data.prompt_format import PromptFormat
from sharpen.data.prompts import load_prompts
from sharpen.data.rows import read_rows
from sharpen.data.tasks.arithmetic import ALPHABET
from sharpen.errors import DataError, RecipeError
from sharpen.launch.dry_run import dry_run
from sharpen.launch.evaluate import evaluate
from sharpen.launch.run import resume, start
from sharpen.models.character_model import create_character_model
from sharpen.models.merge import merge
from sharpen.recipe.loading import load_recipe
from sharpen.rollout.engine import Request
from sharpen.rollout.local.engine import LocalEngine
from sharpen.rollout.turns import Reply
from sharpen.runs.folder import read_metrics
from sharpen.types import End, Prompt, Trajectory
from tiny_runs import Raising, assert_left_the_same, digits, given, left_behind, tiny_recipe

TURNS = (
    "{% for m in messages %}{{ m['role'][0] }}:{{ m['content'] }}"
    "{{ eos_token if m['role'] == 'assistant' else ';' }}{% endfor %}"
    "{% if add_generation_prompt %}a:{% endif %}"
)
DATED = "{% if strftime_now is defined %}{{ strftime_now('%d+%m+%Y') }};{% endif %}" + TURNS
MARKED = "0;" + TURNS
ROWS = [{"prompt": f"{a}+{b}=", "completion": str(a + b)} for a in range(3) for b in range(2)]


class Clock(datetime):
    """A clock that a test sets."""

    day = date(2026, 3, 1)

    @classmethod
    def now(cls, tz: Any = None) -> datetime:  # type: ignore[override]
        return datetime(cls.day.year, cls.day.month, cls.day.day, 23, 59)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> type[Clock]:
    """Of sharpen and of transformers, which templates ask."""
    monkeypatch.setattr("sharpen.data.chat.dates.datetime", Clock)
    monkeypatch.setattr("transformers.utils.chat_template_utils.datetime", Clock)
    monkeypatch.setattr(Clock, "day", date(2026, 3, 1))
    return Clock


def model_with(path: Path, template: str | dict[str, str] | None) -> Path:
    create_character_model(
        path, alphabet=ALPHABET + "aus:", hidden=16, intermediate=24, layers=1, heads=2, context=64, seed=3
    )
    tokenizer = AutoTokenizer.from_pretrained(path)
    tokenizer.chat_template = template
    tokenizer.save_pretrained(path)
    return path


class PowerCut(KeyboardInterrupt):
    """Nothing catches it, not even where a logger raises it."""


def cut_off(after: int) -> Raising:
    def fall() -> None:
        raise PowerCut

    return Raising(lambda step: step == after, fall)


def grpo(run: Path, model: Path, **data: Any) -> Any:
    return tiny_recipe(
        run,
        model,
        "grpo",
        data={"task": None, "train": ROWS, "held_out": ROWS[:3], "chat": True, **data},
        reward=digits,
        training={"steps": 4},
        checkpoint={"every": 2},
    )


def prompt_of(loaded: Any) -> str:
    with loaded as model:
        [completion] = model.generate("1+1=", sharpen.Sampling(1))
        return str(completion.prompt)


def test_a_run_started_yesterday_is_resumed_today_bit_for_bit(tmp_path: Path, clock: type[Clock]) -> None:
    model = model_with(tmp_path / "model", DATED)
    assert start(grpo(tmp_path / "whole", model)).finished
    whole = left_behind(tmp_path / "whole", step=4)
    assert whole["samples"]["step_000001.parquet"][0]["prompt"].startswith("01+03+2026;u:")

    run = tmp_path / "cut"
    with pytest.raises(PowerCut):
        start(grpo(run, model), loggers=[cut_off(after=3)])
    clock.day = date(2026, 3, 2)
    assert resume(run, {"reward": digits, "data.train": ROWS, "data.held_out": ROWS[:3]}).finished
    assert_left_the_same(run, whole, step=4)
    assert load_recipe(run / "recipe.yaml").data.date == date(2026, 3, 1)


def test_who_renders_between_turns_has_the_date_of_the_start_too(tmp_path: Path, clock: type[Clock]) -> None:
    """The function of turns calls transformers, in a thread of its own."""
    model = model_with(tmp_path / "model", DATED)
    tokenizer = AutoTokenizer.from_pretrained(model)

    def again(prompt: Prompt, trajectory: Trajectory) -> Reply | End:
        message = {"role": "user", "content": "1"}
        said = [*prompt.messages, *trajectory.messages, message]
        ids = tokenizer.apply_chat_template(said, add_generation_prompt=True, return_dict=False)
        return Reply(tuple(ids), (message,))

    def with_turns(run: Path) -> Any:
        return given(grpo(run, model), {"rollout.turns": again, "rollout.max_turns": 2, "rollout.max_new_tokens": 12})

    assert start(with_turns(tmp_path / "whole")).finished
    whole = left_behind(tmp_path / "whole", step=4)
    assert any(row["turns"] > 1 for row in whole["samples"]["step_000001.parquet"])
    run = tmp_path / "cut"
    with pytest.raises(PowerCut):
        start(with_turns(run), loggers=[cut_off(after=3)])
    clock.day = date(2026, 3, 2)
    objects = {"reward": digits, "data.train": ROWS, "data.held_out": ROWS[:3], "rollout.turns": again}
    assert resume(run, objects).finished
    assert_left_the_same(run, whole, step=4)


def test_what_uses_a_run_later_writes_the_date_of_its_start(tmp_path: Path, clock: type[Clock]) -> None:
    model = model_with(tmp_path / "model", DATED)
    run = start(grpo(tmp_path / "run", model))
    clock.day = date(2026, 3, 2)
    assert prompt_of(sharpen.load(run, chat=True)).startswith("01+03+2026;u:")
    assert prompt_of(sharpen.load(tmp_path / "model", chat=True)).startswith("02+03+2026;u:")
    with sharpen.load(run) as loaded:
        conversation = loaded.chat()
        assert conversation._format is not None
        assert conversation._format.prompt_text([{"role": "user", "content": "1"}]).startswith("01+03+2026;u:")
    measured = evaluate(run, data=ROWS[:3], reward=digits)
    last = read_metrics(tmp_path / "run")[-1]
    assert measured.measures["reward"].mean == last["held_out/reward"]


def test_the_date_can_be_given_and_is_recorded_only_where_it_is_written(tmp_path: Path, clock: type[Clock]) -> None:
    dated, plain = model_with(tmp_path / "dated", DATED), model_with(tmp_path / "plain", TURNS)
    given = start(grpo(tmp_path / "given", dated, date="2024-07-26"))
    assert prompt_of(sharpen.load(given)).startswith("26+07+2024;u:")
    start(grpo(tmp_path / "without", plain))
    assert load_recipe(tmp_path / "without" / "recipe.yaml").data.date is None
    for action in (lambda r: start(r), lambda r: dry_run(r, say=print)):
        with pytest.raises(RecipeError, match=r"no effect of `data\.date`"):
            action(grpo(tmp_path / "idle", plain, date="2024-07-26"))
    assert not (tmp_path / "idle").exists()


def test_a_template_that_transformers_renders_later_writes_the_date_too(tmp_path: Path, clock: type[Clock]) -> None:
    """As a user's own code does between turns."""
    run = start(grpo(tmp_path / "run", model_with(tmp_path / "model", DATED)))
    assert run.finished
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    said = [{"role": "user", "content": "1"}]
    with date_written(date(2024, 7, 26)):
        assert tokenizer.apply_chat_template(said, tokenize=False) == "26+07+2024;u:1;"
    assert tokenizer.apply_chat_template(said, tokenize=False) == "01+03+2026;u:1;"


@pytest.mark.parametrize("own", [None, TURNS, {"default": TURNS, "tool_use": TURNS}], ids=["none", "one", "several"])
@pytest.mark.parametrize("as_file", [True, False])
def test_another_template_goes_wherever_the_model_goes(tmp_path: Path, own: Any, as_file: bool) -> None:
    model = model_with(tmp_path / "model", own)
    file = tmp_path / "marked.jinja"
    file.write_text(MARKED)
    run = start(grpo(tmp_path / "run", model, chat_template=str(file) if as_file else MARKED))
    file.unlink()
    assert prompt_of(sharpen.load(run)) == "0;u:1+1=;a:"
    assert run.checkpoint is not None
    assert AutoTokenizer.from_pretrained(run.checkpoint).chat_template == MARKED
    assert load_recipe(tmp_path / "run" / "recipe.yaml").data.chat_template == MARKED
    measured = evaluate(run, data=ROWS[:3], reward=digits)
    assert measured.measures["reward"].mean == read_metrics(tmp_path / "run")[-1]["held_out/reward"]
    [first, *_] = left_behind(tmp_path / "run", step=4)["samples"]["step_000001.parquet"]
    assert first["prompt"].startswith("0;u:")


def test_a_run_with_lora_has_its_template_too(tmp_path: Path) -> None:
    recipe = grpo(tmp_path / "run", model_with(tmp_path / "model", TURNS), chat_template=MARKED)
    lora = recipe.model.model_validate({**recipe.model.model_dump(), "lora": {"rank": 2}})
    run = start(recipe.model_copy(update={"model": lora}))
    assert prompt_of(sharpen.load(run)) == "0;u:1+1=;a:"
    # The adapter's folder brings it along, also where no recipe says so.
    adapter = shutil.copytree(str(run.checkpoint), tmp_path / "adapter")
    assert prompt_of(sharpen.load(adapter, chat=True)) == "0;u:1+1=;a:"
    merge(adapter, tmp_path / "merged")
    assert AutoTokenizer.from_pretrained(tmp_path / "merged").chat_template == MARKED
    again = start(
        grpo(tmp_path / "again", adapter).model_copy(update={"model": lora.model_copy(update={"path": str(adapter)})})
    )
    assert prompt_of(sharpen.load(again)) == "0;u:1+1=;a:"


def test_one_of_several_templates_is_named(tmp_path: Path) -> None:
    model = model_with(tmp_path / "model", {"rag": MARKED, "default": TURNS})
    assert prompt_of(sharpen.load(model, chat=True)) == "u:1+1=;a:"
    assert prompt_of(sharpen.load(model, chat=True, chat_template="rag")) == "0;u:1+1=;a:"
    with pytest.raises(RecipeError, match=r"chat_template: rak: there is no such file, and the tokenizer has"):
        sharpen.load(model, chat_template="rak")
    nameless = model_with(tmp_path / "nameless", {"rag": MARKED, "long": TURNS})
    with pytest.raises(DataError, match=r"none is its default: name one of .*rag"):
        prompt_of(sharpen.load(nameless, chat=True))


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ("no/such.jinja", r"data\.chat_template: no/such\.jinja: no such file"),
        ("gone.jinja", r"data\.chat_template: gone\.jinja: no such file"),
        ("{% for m in messages %}\n{{ m }\n{% endfor %}", r"data\.chat_template, line 2: unexpected '}'"),
        ("BROKEN", r"data\.chat_template: .*broken\.jinja, line 3: Encountered unknown tag 'end'"),
        ("EMPTY", r"data\.chat_template: .*empty\.jinja holds no chat template"),
        ("LATIN", r"data\.chat_template: .*latin\.jinja cannot be read: 'utf-8'"),
        ("rag", r"data\.chat_template: rag: there is no such file, and the tokenizer names none"),
    ],
)
def test_a_template_that_cannot_be_used_is_an_error_before_anything_is_written(
    tmp_path: Path, given: str, complaint: str
) -> None:
    (tmp_path / "broken.jinja").write_text("{{ bos_token }}\n{% for m in messages %}\n{% end %}")
    (tmp_path / "empty.jinja").write_text("chatml\n")
    (tmp_path / "latin.jinja").write_bytes("{{ 'é' }}".encode("latin-1"))
    if given.isupper():
        given = str(tmp_path / f"{given.lower()}.jinja")
    model = model_with(tmp_path / "model", TURNS)
    with pytest.raises(RecipeError, match=complaint):
        start(grpo(tmp_path / "run", model, chat_template=given))
    assert not (tmp_path / "run" / "recipe.yaml").exists()
    with pytest.raises(RecipeError, match=complaint.replace(r"data\.chat_template", "chat_template")):
        sharpen.load(model, chat_template=given)


@pytest.mark.parametrize("given", ["yesterday", 20240726, "2024-13-01", datetime(2024, 7, 26, 12)])
def test_what_is_no_date_is_an_error(tmp_path: Path, given: Any) -> None:
    with pytest.raises(RecipeError, match=r"`data\.date`: write a date as in 2024-07-26"):
        grpo(tmp_path / "run", tmp_path, date=given)


def test_the_saved_recipe_of_another_template_is_read_again(tmp_path: Path) -> None:
    template = MARKED + "{# ${x} \\${y} 'a' \"b\" #}\n"
    run = start(grpo(tmp_path / "run", model_with(tmp_path / "model", TURNS), chat_template=template))
    assert load_recipe(run.path / "recipe.yaml").data.chat_template == template
    assert json.loads(load_recipe(run.path / "recipe.yaml").model_dump_json())["data"]["chat_template"] == template


TOOLED = (
    "{% for t in tools or [] %}{{ t.function.name }};{% endfor %}"
    "{% for d in documents or [] %}{{ d.text }};{% endfor %}"
)


def s(a: str) -> str:
    """Add a.

    Args:
        a: what to add
    """
    return a


def test_tools_and_documents_are_given_to_a_loaded_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def watched(self: LocalEngine, requests: Sequence[Request]) -> None:
        asked.extend(self.policy.tokenizer.decode(request.token_ids) for request in requests)
        add(self, requests)

    add = LocalEngine.add
    monkeypatch.setattr(LocalEngine, "add", watched)
    path = model_with(tmp_path / "model", TOOLED + TURNS)
    given: dict[str, Any] = {"tools": [s], "documents": [{"text": "1+1"}]}
    with sharpen.load(path, chat=True) as model:
        [completion] = model.generate("2+2=", sharpen.Sampling(2), **given)
        assert completion.prompt == "s;1+1;u:2+2=;a:"
        conversation = model.chat(sharpen.Sampling(1, temperature=0), **given)
        said = [conversation.reply("1").text, conversation.reply("2").text]
        assert model.reply("1", sharpen.Sampling(1, temperature=0), **given) == said[0]
        assert asked == ["s;1+1;u:2+2=;a:", "s;1+1;u:1;a:", f"s;1+1;u:1;a:{said[0]}<eos>u:2;a:", "s;1+1;u:1;a:"]
        written = model.logprobs("2+2=", completion, **given)
        assert written == pytest.approx(completion.logprobs, abs=1e-5)
        assert model.logprobs("2+2=", completion) != pytest.approx(completion.logprobs, abs=1e-3)
        assert model.logprobs("2+2=", "4", **given)[0] != model.logprobs("2+2=", "4")[0]
    plain = model_with(tmp_path / "plain", TURNS)
    with sharpen.load(plain, chat=True) as model:
        for refused in (model.generate, model.reply):
            with pytest.raises(DataError, match="leaves out column `tools`"):
                refused("2+2=", tools=[s])
    with sharpen.load(plain) as model, pytest.raises(RecipeError, match="no effect of `tools`: the prompts are plain"):
        model.generate("2+2=", tools=[s])


def test_who_renders_between_turns_finds_what_the_template_got(tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(model_with(tmp_path / "model", TOOLED + "{{ mark }}" + TURNS))
    row = {"prompt": "1", "tools": [{"name": "s"}], "documents": None}
    format_ = PromptFormat(tokenizer, 100, chat=True, system="0", chat_template_kwargs={"mark": "+"})
    (prompt,) = load_prompts(read_rows([row]), format_, max_new_tokens=1).items
    assert prompt.text == "s;+s:0;u:1;a:"
    again = tokenizer.apply_chat_template(
        list(prompt.messages), tokenize=False, add_generation_prompt=True, **prompt.template_arguments
    )
    assert again == prompt.text
