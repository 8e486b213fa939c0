"""What a row's messages, tools and documents become, in templates of the kinds that the hub has."""

import json
from pathlib import Path

import pytest
from datasets import Dataset
from tiny_tokenizers import PLAIN_TEMPLATE, make_tokenizer

from sharpen.data.chat import ChatFormat
from sharpen.data.chat.messages import given_by, normalised
from sharpen.data.prompt_format import PromptFormat
from sharpen.data.prompts import load_prompts
from sharpen.data.rows import read_rows
from sharpen.errors import DataError

# As Idefics and SmolVLM: content is a list of parts, and a text is looked at character by character.
PARTS = (
    "{% for m in messages %}<{{ m.role }}>{% for part in m['content'] %}{% if part['type'] == 'text' %}"
    "{{ part['text'] }}{% endif %}{% endfor %}<eos>{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
)
# As Llama 3 and Gemma 2: whatever content is, it is written as Python writes it.
TRIMMED = "{% for m in messages %}<{{ m.role }}>{{ m['content'] | string | trim }}<eos>{% endfor %}"
# As Qwen3: content that is no string is written as nothing.
IF_STRING = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content if m.content is string else '' }}"
    "{% for call in m.tool_calls or [] %}<call>{{ {'name': call.function.name, 'arguments': call.function.arguments} | "
    "tojson }}{% endfor %}<eos>{% endfor %}"
)
# As Gemma 3 and Llama 4: both are read.
EITHER = (
    "{% for m in messages %}<{{ m.role }}>{% if m.content is string %}{{ m.content }}{% else %}"
    "{% for part in m.content %}{{ part.text }}{% endfor %}{% endif %}<eos>{% endfor %}"
)
# As DeepSeek R1: the arguments of a call are joined to a text.
JOINED = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% for call in m.tool_calls or [] %}"
    "{{ '<call>' + call['function']['name'] + '\n' + call['function']['arguments'] }}{% endfor %}<eos>{% endfor %}"
)
# As templates that write the arguments in Python's form unless they are a text.
SPOILT = JOINED.replace("+ call['function']['arguments']", "~ call['function']['arguments']")
TEMPLATES = {"parts": PARTS, "trimmed": TRIMMED, "if_string": IF_STRING, "either": EITHER}

ASKED = [{"type": "text", "text": "Name a "}, {"type": "text", "text": "river."}]
CALL = {"name": "look", "arguments": {"at": "Rhine", "deep": None}}


def text_of(template, messages, given=None):
    format_ = ChatFormat(make_tokenizer(template), {})
    return format_.text(messages, "d.jsonl:3", given or {}, add_generation_prompt=False)


@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES)
@pytest.mark.parametrize("content", ["Name a river.", ASKED], ids=["text", "parts"])
def test_texts_and_text_parts_are_the_same_to_every_template(template, content):
    messages = [{"role": "user", "content": content}, {"role": "assistant", "content": content}]
    assert text_of(template, messages) == "<user>Name a river.<eos><assistant>Name a river.<eos>"


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (5, r"message 2 \(user\): `content` must be a text or a list of text parts, not int \(5\)"),
        (True, r"message 2 \(user\): `content` must be a text or .* not bool \(True\)"),
        ({"text": "hi"}, r"message 2 \(user\): `content` must be a text or .* not dict"),
        (None, r"message 2 \(user\) has neither `content` nor `tool_calls`"),
        ([{"type": "image", "url": "a.png"}], r"message 2 \(user\): part 1 of `content` is of type 'image': only text"),
        (
            [{"type": "text", "text": "hi"}, {"type": "input_audio", "text": None}],
            r"message 2 \(user\): part 2 of `content` is of type 'input_audio'",
        ),
        (["hi"], r"message 2 \(user\): part 1 of `content` must be an object like .*, not str \('hi'\)"),
        (
            [{"type": "text", "text": 7}],
            r"message 2 \(user\): part 1 of `content`: `text` must be a string, not int \(7\)",
        ),
        ([{"type": "text"}], r"message 2 \(user\): part 1 of `content`: `text` must be a string, not NoneType"),
        (
            [{"type": "text", "text": "hi", "citations": ["a"]}],
            r"message 2 \(user\): part 1 of `content` has beside its text `citations`, which is not served",
        ),
    ],
)
def test_content_that_is_no_text_is_an_error_with_row_and_message(content, complaint):
    messages = [{"role": "system", "content": "be"}, {"role": "user", "content": content}]
    with pytest.raises(DataError, match=rf"^d\.jsonl:3: {complaint}"):
        text_of(EITHER, messages)


def test_keys_that_arrow_filled_with_null_are_gone():
    parts = [{"type": "text", "text": "Name a river.", "url": None}]
    calls = [{"type": "function", "id": None, "function": {"name": "look", "arguments": {"at": "Rhine", "deep": None}}}]
    (said, called) = normalised(
        [
            {"role": "user", "content": parts, "tool_calls": None, "name": None},
            {"role": "assistant", "content": None, "tool_calls": calls},
        ],
        "row 1",
    )
    assert said == {"role": "user", "content": "Name a river."}
    assert called == {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"type": "function", "function": {"name": "look", "arguments": {"at": "Rhine"}}}],
    }


@pytest.mark.parametrize(
    ("given", "arguments"),
    [
        ({"type": "function", "function": CALL}, '{"at": "Rhine"}'),
        (CALL, '{"at": "Rhine"}'),
        ({"function": {"name": "look", "arguments": '{"at": "Rhine", "deep": null}'}}, '{"at": "Rhine", "deep": null}'),
        (json.dumps({"function": CALL}), '{"at": "Rhine", "deep": null}'),
        ({"name": "look", "arguments": None}, "{}"),
        ({"name": "look", "arguments": ""}, "{}"),
        ({"name": "look"}, "{}"),
    ],
)
def test_arguments_are_objects_however_they_are_given(given, arguments):
    messages = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": None, "tool_calls": [given]}]
    assert text_of(IF_STRING, messages).endswith(f'<call>{{"name": "look", "arguments": {arguments}}}<eos>')


@pytest.mark.parametrize("template", [JOINED, SPOILT])
@pytest.mark.parametrize("arguments", [{"at": "Röhn"}, '{"at": "Röhn"}'])
def test_a_template_that_joins_arguments_to_a_text_gets_their_json(template, arguments):
    call = {"type": "function", "function": {"name": "look", "arguments": arguments}}
    messages = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "", "tool_calls": [call]}]
    assert text_of(template, messages) == '<user>hi<eos><assistant><call>look\n{"at": "Röhn"}<eos>'


def test_a_single_function_call_is_a_list_of_one():
    called = {"role": "assistant", "content": None, "function_call": {"name": "look", "arguments": "{}"}}
    assert normalised([called], "row 1")[0]["tool_calls"] == [
        {"type": "function", "function": {"name": "look", "arguments": {}}}
    ]


@pytest.mark.parametrize(
    ("calls", "complaint"),
    [
        ([{"name": "look", "arguments": '{"at": '}], r"tool call 1: `arguments` is not valid JSON: .*: '\{\"at\": '"),
        ([CALL, {"name": "look", "arguments": "[1]"}], r"tool call 2: `arguments` must be an object or its JSON text"),
        ([{"name": "look", "arguments": 7}], r"tool call 1: `arguments` must be an object .* not int \(7\)"),
        ([{"arguments": {}}], r'tool call 1 must be an object like \{"type": "function"'),
        ("[{", "`tool_calls` is not valid JSON"),
        ({"name": "look"}, "`tool_calls` must be a list, not dict"),
    ],
)
def test_a_malformed_call_is_an_error_with_row_and_message(calls, complaint):
    messages = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": None, "tool_calls": calls}]
    with pytest.raises(DataError, match=rf"^d\.jsonl:3: message 2 \(assistant\): {complaint}"):
        text_of(IF_STRING, messages)


def test_reasoning_is_a_text():
    with pytest.raises(DataError, match=r"row 4: message 1 \(assistant\): `thinking` must be a text, not list"):
        normalised([{"role": "assistant", "content": "2", "thinking": [1]}], "row 4")


SCHEMA = {"name": "look", "parameters": {"type": "object", "properties": {"at": {"type": "string"}}}}


@pytest.mark.parametrize(
    "tools",
    [
        [SCHEMA],
        [{"type": "function", "function": SCHEMA}],
        [{"function": {**SCHEMA, "strict": None}}],
        [{"type": "function", **SCHEMA}],
        json.dumps([SCHEMA]),
        [json.dumps(SCHEMA)],
        [{**SCHEMA, "parameters": json.dumps(SCHEMA["parameters"])}],
    ],
)
def test_tools_are_schemas_however_they_are_given(tools):
    assert given_by({"tools": tools}, "row 1") == {"tools": [{"type": "function", "function": SCHEMA}]}


@pytest.mark.parametrize("tools", [None, [], "", "[]", "null"])
def test_no_tools_are_none(tools):
    assert given_by({"prompt": "hi", "tools": tools, "documents": tools}, "row 1") == {}


def look(at: str) -> str:
    """Look at a river.

    Args:
        at: its name
    """
    return at


def test_a_tool_may_be_a_function_with_hints_and_docstring():
    (tool,) = given_by({"tools": [look]}, "row 1")["tools"]
    assert tool["function"]["name"] == "look"
    assert tool["function"]["parameters"]["properties"] == {"at": {"type": "string", "description": "its name"}}
    with pytest.raises(DataError, match="row 1: column `tools`, tool 1: no JSON schema can be made of this function"):
        given_by({"tools": [lambda x: x]}, "row 1")


def test_functions_of_the_older_format_are_tools_where_a_row_has_none():
    other = {"name": "dip", "parameters": {}}
    as_tools = {"tools": [{"type": "function", "function": SCHEMA}]}
    assert given_by({"functions": [SCHEMA]}, "row 1") == as_tools
    assert given_by({"functions": json.dumps([SCHEMA])}, "row 1") == as_tools
    assert given_by({"tools": None, "functions": [SCHEMA]}, "row 1") == as_tools
    assert given_by({"tools": [SCHEMA], "functions": [other]}, "row 1") == as_tools
    with pytest.raises(DataError, match=r"^row 1: column `functions`, tool 2 must be an object like .* not int"):
        given_by({"functions": [SCHEMA, 3]}, "row 1")


def test_nulls_of_a_schema_go_unless_it_is_json_text():
    optional = {"name": "look", "parameters": {"properties": {"at": {"type": "string", "enum": None}}}}
    assert "enum" not in json.dumps(given_by({"tools": [optional]}, "row 1")["tools"])
    assert '"enum": null' in json.dumps(given_by({"tools": json.dumps([optional])}, "row 1")["tools"])


def test_documents_and_arguments_of_the_row_are_given():
    row = {"documents": '[{"title": "Rhine", "text": "Long."}]', "chat_template_kwargs": {"think": True, "x": None}}
    assert given_by(row, "row 1") == {"think": True, "documents": [{"title": "Rhine", "text": "Long."}]}


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ({"tools": "[{"}, "column `tools` is not valid JSON"),
        ({"tools": "look"}, "column `tools` is not valid JSON"),
        ({"tools": SCHEMA}, "column `tools` must be a list, or its JSON text, not dict"),
        ({"tools": [{"parameters": {}}]}, "column `tools`, tool 1 must be an object like"),
        ({"tools": [SCHEMA, 3]}, r"column `tools`, tool 2 must be an object like .* not int \(3\)"),
        ({"documents": ["Long."]}, r"column `documents`, document 1 must be an object like .* not str"),
        ({"chat_template_kwargs": [1]}, "column `chat_template_kwargs` must be an object, not list"),
    ],
)
def test_what_is_no_tool_or_document_is_an_error_with_the_row(row, complaint):
    with pytest.raises(DataError, match=f"^d.jsonl:3: {complaint}"):
        given_by(row, "d.jsonl:3")


def test_rows_of_parquet_reach_the_template_as_they_were_written(tmp_path: Path):
    rows = [
        {
            "prompt": [
                {"role": "user", "content": [{"type": "text", "text": "hi"}]},
                {"role": "assistant", "tool_calls": [{"function": {"name": "look", "arguments": {"at": "Rhine"}}}]},
                {"role": "tool", "content": [{"type": "text", "text": "wet"}], "tool_call_id": "c1"},
            ]
        },
        {
            "prompt": [
                {"role": "user", "content": [{"type": "text", "text": "hi"}]},
                {"role": "assistant", "tool_calls": [{"function": {"name": "dip", "arguments": {"in": "Elbe"}}}]},
                {"role": "tool", "content": [{"type": "text", "text": "cold"}], "tool_call_id": "c2"},
            ]
        },
    ]
    Dataset.from_list(rows).to_parquet(tmp_path / "d.parquet")
    format_ = PromptFormat(make_tokenizer(IF_STRING), context_length=1000)
    first, second = load_prompts(read_rows(tmp_path / "d.parquet"), format_, max_new_tokens=1).items
    assert first.text == (
        '<user>hi<eos><assistant><call>{"name": "look", "arguments": {"at": "Rhine"}}<eos><tool>wet<eos><assistant>'
    )
    assert second.text == (
        '<user>hi<eos><assistant><call>{"name": "dip", "arguments": {"in": "Elbe"}}<eos><tool>cold<eos><assistant>'
    )


FAULTS = {
    "{{ 1 // 0 }}": "ZeroDivisionError: integer division or modulo by zero",
    "{{ 'x' + m.content[0] + 1 }}": "TypeError: can only concatenate str",
    "{{ m.lacking.deeper }}": "'dict object' has no attribute 'lacking'",
    "{{ m.content.__class__.__mro__ }}": "SecurityError: access to attribute '__class__' of 'str' object is unsafe",
    "{% macro again(x) %}{{ again(x) }}{% endmacro %}{{ again(1) }}": "RecursionError: it calls itself without end",
    "{{ raise_exception('no tool here') }}": "no tool here",
    "{{ dict(m, role=1)['lacking'] + 'x' }}": "'dict object' has no attribute 'lacking'",
    "{% include 'other' %}": "TypeError: no loader for this environment specified",
}


@pytest.mark.parametrize(("fault", "complaint"), FAULTS.items())
def test_whatever_a_template_raises_names_row_and_message(fault, complaint):
    template = "{% for m in messages %}{% if m.role == 'tool' %}" + fault + "{% endif %}{{ m.content }}{% endfor %}"
    said = ["hi", "yes", "hmm", "ok"]
    messages = [
        {"role": role, "content": content}
        for role, content in zip(["user", "assistant", "tool", "assistant"], said, strict=True)
    ]
    with pytest.raises(DataError) as raised:
        text_of(template, messages)
    assert str(raised.value).startswith(
        f"d.jsonl:3: the chat template rejects this conversation at message 3 (tool): {complaint}"
    )
    assert "\n" not in str(raised.value)


def test_the_system_message_of_the_settings_is_named_and_not_counted():
    template = (
        "{% for m in messages %}{% if m.role in ('system', 'tool') %}{{ raise_exception('no ' ~ m.role) }}{% endif %}"
        "{{ m.content }}{% endfor %}"
    )
    format_ = ChatFormat(make_tokenizer(template), {}, system="be")
    with pytest.raises(DataError, match=r"at the system message that the settings give: no system"):
        format_.prompt_text([{"role": "user", "content": "hi"}], "row 1")
    allowed = ChatFormat(make_tokenizer(template.replace("'system', ", "")), {}, system="be")
    with pytest.raises(DataError, match=r"row 1: .* at message 2 \(tool\): no tool"):
        allowed.prompt_text([{"role": "user", "content": "hi"}, {"role": "tool", "content": "x"}], "row 1")


def test_a_template_that_is_broken_itself_says_so():
    with pytest.raises(DataError, match="rejects every conversation: TemplateSyntaxError: Expected an expr"):
        text_of("{% for m in %}", [{"role": "user", "content": "hi"}])


def test_tools_that_a_template_rejects_are_named():
    template = "{% if tools %}{{ raise_exception('no tools here') }}{% endif %}" + PLAIN_TEMPLATE
    with pytest.raises(DataError, match="rejects this conversation with its `tools`: no tools here"):
        text_of(template, [{"role": "user", "content": "hi"}], {"tools": [SCHEMA]})
