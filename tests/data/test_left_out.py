"""A template leaves out what it does not know, without a word; the row that loses something is named."""

import pytest
from tiny_tokenizers import PLAIN_TEMPLATE, make_tokenizer

from sharpen.data.chat import ChatFormat
from sharpen.data.chat.left_out import check_row
from sharpen.data.chat.messages import given_by
from sharpen.data.demonstrations import load_demonstrations
from sharpen.data.prompt_format import PromptFormat
from sharpen.data.prompts import load_prompts
from sharpen.data.rows import read_rows
from sharpen.errors import DataError

# What templates have of tools: Qwen's way, in <tools>, <call> and <tool>.
TOOLS = "{% if tools %}<tools>{% for t in tools %}{{ t | tojson }}{% endfor %}</tools>{% endif %}"
DOCUMENTS = "{% for d in documents or [] %}<document>{{ d.title }}: {{ d.text }}</document>{% endfor %}"
CALLS = "{% for c in m.tool_calls or [] %}<call>{{ c.function | tojson }}</call>{% endfor %}"
NAMES = "{% for c in m.tool_calls or [] %}<call>{{ c.function.name }}</call>{% endfor %}"
THINK = "{% if m.reasoning_content and loop.last %}<think>{{ m.reasoning_content }}</think>{% endif %}"


def template(before="", turn="{{ m.content }}", roles="true"):
    return (
        f"{before}{{% for m in messages %}}{{% if {roles} %}}<{{{{ m.role }}}}>{turn}<eos>\n{{% endif %}}{{% endfor %}}"
        "{% if add_generation_prompt %}<assistant>{% endif %}"
    )


EVERYTHING = template(TOOLS + DOCUMENTS, f"{THINK}{{{{ m.content }}}}{CALLS}")
SCHEMA = {"name": "look", "parameters": {"type": "object", "properties": {}}}
ASKED, ANSWERED = {"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes"}
CALLED = {"role": "assistant", "content": None, "tool_calls": [{"name": "look", "arguments": {"at": "Rhine"}}]}
FOUND = {"role": "tool", "content": 'wet\n"deep"'}
CALLING = [ASKED, CALLED, FOUND, ANSWERED]


def prompt(template, system=None, **row):
    (found,) = load_prompts(
        read_rows([row], name="d"), PromptFormat(make_tokenizer(template), 10_000, system=system), max_new_tokens=1
    ).items
    return found.text


def demonstrated(template, **row):
    (group,) = load_demonstrations(read_rows([row], name="d"), PromptFormat(make_tokenizer(template), 10_000)).items
    return group.prompt.text


def test_a_template_that_writes_all_gets_all():
    row = {"tools": [SCHEMA], "documents": [{"title": "Rhine", "text": "Long."}]}
    written = prompt(EVERYTHING, prompt=CALLING[:3], **row)
    assert written == (
        '<tools>{"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}'
        "</tools><document>Rhine: Long.</document><user>hi<eos>\n"
        '<assistant><call>{"name": "look", "arguments": {"at": "Rhine"}}</call><eos>\n'
        '<tool>wet\n"deep"<eos>\n<assistant>'
    )
    assert demonstrated(EVERYTHING, messages=CALLING, **row).endswith("</document><user>hi<eos>\n<assistant>")


@pytest.mark.parametrize(
    ("given", "row", "complaint"),
    [
        (PLAIN_TEMPLATE, {"messages": CALLING}, r"leaves out the tool calls of message 2 \(assistant\)"),
        (template(turn="{{ m.content }}" + NAMES), {"messages": CALLING}, "leaves out the tool calls of message 2"),
        (PLAIN_TEMPLATE, {"messages": [ASKED, ANSWERED], "tools": [SCHEMA]}, "leaves out column `tools`"),
        (
            template(TOOLS),
            {"messages": [ASKED, ANSWERED], "documents": [{"title": "a", "text": "b"}]},
            "leaves out column `documents`",
        ),
        (
            template(turn="{{ m.content }}" + CALLS, roles="m.role != 'tool'"),
            {"messages": CALLING},
            r"leaves out the content of message 3 \(tool\)",
        ),
        # As Llama 3.1 does: a call takes the place of the content.
        (
            template(turn="{% if m.tool_calls %}" + CALLS + "{% else %}{{ m.content }}{% endif %}"),
            {"messages": [ASKED, {**CALLED, "content": "I look."}, FOUND, ANSWERED]},
            r"leaves out the content of message 2 \(assistant\)",
        ),
        (
            PLAIN_TEMPLATE,
            {"messages": [ASKED, {**ANSWERED, "reasoning_content": "hmm"}]},
            r"leaves out `reasoning_content` of message 2 \(assistant\)",
        ),
        (
            PLAIN_TEMPLATE,
            {"messages": [ASKED, {**ANSWERED, "thinking": "hmm"}]},
            r"leaves out `thinking` of message 2 \(assistant\)",
        ),
    ],
)
def test_what_a_demonstration_would_lose_is_an_error(given, row, complaint):
    with pytest.raises(DataError, match=f"^d, row 1: the chat template {complaint}"):
        demonstrated(given, **row)


@pytest.mark.parametrize(
    ("given", "row", "complaint"),
    [
        (PLAIN_TEMPLATE, {"prompt": CALLING[:3]}, r"leaves out the tool calls of message 2 \(assistant\)"),
        (PLAIN_TEMPLATE, {"prompt": [ASKED], "tools": [SCHEMA]}, "leaves out column `tools`"),
        (
            template(roles="m.role in ('user', 'assistant')"),
            {"prompt": [{"role": "developer", "content": "be"}, ASKED]},
            r"leaves out the content of message 1 \(developer\)",
        ),
        # One letter, which is elsewhere in the text too.
        (
            template(roles="m.role in ('user', 'assistant')"),
            {"prompt": [{"role": "developer", "content": "s"}, ASKED]},
            r"leaves out the content of message 1 \(developer\)",
        ),
    ],
)
def test_what_a_prompt_would_lose_is_an_error(given, row, complaint):
    with pytest.raises(DataError, match=f"^d, row 1: the chat template {complaint}"):
        prompt(given, **row)


def test_an_argument_of_the_row_reaches_the_template_or_is_an_error():
    assert prompt(PLAIN_TEMPLATE, prompt=[ASKED], chat_template_kwargs={"think": True}).endswith("<think>")
    with pytest.raises(
        DataError, match="row 1: column `chat_template_kwargs` gives `thnk`, which the chat template does"
    ):
        prompt(PLAIN_TEMPLATE, prompt=[ASKED], chat_template_kwargs={"thnk": True})


def test_a_system_message_of_the_settings_that_is_left_out_is_named():
    with pytest.raises(DataError, match=r"leaves out the content of the system message that the settings give"):
        prompt(template(roles="m.role != 'system'"), system="be", prompt=[ASKED])


def test_each_row_is_looked_at():
    rows = [{"messages": [ASKED, ANSWERED], "tools": None}, {"messages": [ASKED, ANSWERED], "tools": [SCHEMA]}]
    with pytest.raises(DataError, match=r"^d, row 2: the chat template leaves out column `tools`"):
        load_demonstrations(read_rows(rows, name="d"), PromptFormat(make_tokenizer(PLAIN_TEMPLATE), 10_000))
    # Tools are only written in a conversation of several turns, calls only in the last one.
    at_times = template("{% if messages | length > 2 %}" + TOOLS + "{% endif %}")
    rows = [{"prompt": [ASKED, ANSWERED, ASKED], "tools": [SCHEMA]}, {"prompt": [ASKED], "tools": [SCHEMA]}]
    with pytest.raises(DataError, match=r"^d, row 2: the chat template leaves out column `tools`"):
        load_prompts(read_rows(rows, name="d"), PromptFormat(make_tokenizer(at_times), 10_000), max_new_tokens=1)


@pytest.mark.parametrize(
    "turn",
    [
        # As Qwen3 and DeepSeek R1 cut the thinking of earlier turns.
        "{{ m.content.split('</think>')[-1] if not loop.last else m.content }}",
        # As Mistral writes what tools found.
        "{{ m.content | tojson }}",
        "{{ m.content | upper | lower | replace('\n', ' ') }}",
    ],
)
def test_a_template_may_write_content_in_its_own_way(turn):
    thought = {"role": "assistant", "content": "<think>why</think>hi"}
    assert prompt(template(turn=turn), prompt=[ASKED, thought, {"role": "user", "content": "a\nb"}])


def test_thinking_in_the_content_is_written_where_it_is_trained_on():
    """DeepSeek V3.1 drops that of every turn; Qwen3 keeps that of the last."""
    thought = {"role": "assistant", "content": "<think>\nwhy\n</think>\n\nyes"}
    drops = template(turn="{{ m.content.split('</think>')[-1] }}")
    keeps = template(turn="{{ m.content if loop.last else m.content.split('</think>')[-1] }}")
    with pytest.raises(DataError, match=r"^d, row 1: .* leaves out the thinking of message 2 \(assistant\): remove"):
        demonstrated(drops, messages=[ASKED, thought])
    assert demonstrated(keeps, messages=[ASKED, thought])
    assert prompt(drops, prompt=[ASKED, thought, ASKED]).endswith("yes<eos>\n<user>hi<eos>\n<assistant>")


def test_earlier_reasoning_may_be_left_out_where_it_is_not_trained_on():
    said = {**ANSWERED, "reasoning_content": "hmm"}
    assert "hmm" not in prompt(PLAIN_TEMPLATE, prompt=[ASKED, said, ASKED])
    assert demonstrated(EVERYTHING, messages=[ASKED, said]) == "<user>hi<eos>\n<assistant>"


@pytest.mark.parametrize("said", ["<think>hmm</think>yes", "hmm\n</think>\n\nyes", "<think>e</think>yes"])
def test_thinking_that_is_cut_out_of_a_turn_to_train_on_is_an_error(said):
    cut = template(turn="{{ m.content.split('</think>')[-1] }}")
    kept = template(turn="{{ m.content if loop.last else m.content.split('</think>')[-1] }}")
    row = {"messages": [ASKED, {**ANSWERED, "content": said}, ASKED, ANSWERED]}
    with pytest.raises(DataError, match=r"^d, row 1: .* leaves out the thinking of message 2 \(assistant\): remove it"):
        demonstrated(cut, **row)
    assert demonstrated(kept, **row)
    # It is no loss where it is not trained on.
    assert "hmm" not in prompt(cut, prompt=row["messages"][:3])


@pytest.mark.parametrize("blank", ["", " \n", [], [{"type": "text", "text": ""}]])
def test_an_empty_question_is_an_error(blank):
    with pytest.raises(DataError, match=r"^d, row 1: message 3 \(user\) is empty"):
        prompt(PLAIN_TEMPLATE, prompt=[ASKED, ANSWERED, {"role": "user", "content": blank}])


@pytest.mark.parametrize(
    "key",
    [{"weight": 0}, {"weight": 0.0}, {"weight": 0.5}, {"train": False}, {"train_on_turn": False}, {"loss": False}],
)
def test_a_turn_that_is_marked_as_not_trained_on_is_an_error(key):
    with pytest.raises(DataError, match=rf"^d, row 1: message 2 \(assistant\) has `{next(iter(key))}: "):
        demonstrated(PLAIN_TEMPLATE, messages=[ASKED, {**ANSWERED, **key}, ASKED, ANSWERED])
    assert demonstrated(PLAIN_TEMPLATE, messages=[ASKED, {**ANSWERED, "weight": 1, "train": True}])


def test_what_only_prompts_say_is_not_left_out():
    """Mistral writes the system message and the tools with the last message, if that is the user's."""
    first = "{% if messages[0].role == 'system' %}{{ messages[0].content }}{% endif %}"
    mistral = (
        "{% for m in messages %}{% if m.role == 'user' %}{% if loop.last %}"
        "{% if tools %}<tools>{{ tools | tojson }}{% endif %}" + first + "{% endif %}<user>{{ m.content }}"
        "{% elif m.role == 'assistant' %}<assistant>{{ m.content }}<eos>{% endif %}{% endfor %}"
    )
    format_ = ChatFormat(make_tokenizer(mistral), {})
    messages = [{"role": "system", "content": "be"}, ASKED, ANSWERED, {"role": "user", "content": "why"}, ANSWERED]
    given = given_by({"tools": [SCHEMA]}, "d, row 1")
    check_row(format_, messages, "d, row 1", given, start=2)
    check_row(format_, messages[:2], "d, row 1", given)
    with pytest.raises(DataError, match=r"leaves out the content of message 1 \(system\)"):
        check_row(format_, messages[:3], "d, row 1", {})
    with pytest.raises(DataError, match=r"leaves out the content of message 4 \(tool\)"):
        check_row(format_, [*messages[:3], {"role": "tool", "content": "wet"}, ANSWERED], "d, row 1", given, start=2)
