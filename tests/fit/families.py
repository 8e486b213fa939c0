"""Model families by their chat templates, which lie in ``templates``, and what becomes of small conversations.

In an expected text, what is trained on stands between « and »; several texts are several samples. The templates are
our own, at a size that a test can hold. ``compared_with`` names the real template whose text for these conversations
was compared with ours, character by character; the instructions around a list of tools are shortened in all of them.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

from trained_tokenizers import make_tokenizer
from transformers import PreTrainedTokenizerFast

Row: TypeAlias = dict[str, Any]
DATE = datetime.date(2026, 3, 1)
TOOL = (
    '{"type": "function", "function": {"name": "add", "description": "Adds.", '
    '"parameters": {"type": "object", "properties": {"x": {"type": "integer"}}}}}'
)


def said(role: str, content: str, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


_CALL = {"id": "abcdefghi", "type": "function", "function": {"name": "add", "arguments": {"x": 1}}}
_ADD = {
    "name": "add",
    "description": "Adds.",
    "parameters": {"type": "object", "properties": {"x": {"type": "integer"}}},
}
CALLED = [
    said("user", "hi"),
    said("assistant", "", tool_calls=[_CALL]),
    said("tool", "2", name="add", tool_call_id="abcdefghi"),
    said("assistant", "yes"),
]
_THOUGHT = "<think>\nhmm\n</think>\n\nyes", "<think>\num\n</think>\n\nno"
CONVERSATIONS: dict[str, Row] = {
    "one": {"messages": [said("user", "hi"), said("assistant", "yes")]},
    "system": {"messages": [said("system", "be nice"), said("user", "hi"), said("assistant", "yes")]},
    "two": {
        "messages": [said("user", "hi"), said("assistant", "yes"), said("user", "why"), said("assistant", "no")],
    },
    "system and two": {
        "messages": [
            said("system", "be nice"),
            *[said("user", "hi"), said("assistant", "yes"), said("user", "why"), said("assistant", "no")],
        ],
    },
    "thinking": {
        "messages": [
            *[said("user", "hi"), said("assistant", _THOUGHT[0])],
            *[said("user", "why"), said("assistant", _THOUGHT[1])],
        ],
    },
    "reasoning": {"messages": [said("user", "hi"), said("assistant", "yes", reasoning_content="hmm")]},
    "tools": {"messages": CALLED, "tools": [{"type": "function", "function": _ADD}]},
    "calls": {"messages": CALLED},
    "documents": {
        "messages": [said("user", "hi"), said("assistant", "yes")],
        "documents": [{"doc_id": "1", "text": "Rivers flow."}],
    },
    "no thinking": {"messages": [said("system", "/no_think"), said("user", "hi"), said("assistant", "yes")]},
    "two answers": {"messages": [said("user", "hi"), said("assistant", "yes"), said("assistant", "no")]},
}


@dataclass(frozen=True)
class Rejected:
    """The row is an error that names it and says this, a regular expression."""

    why: str


Expected: TypeAlias = str | tuple[str, ...] | Rejected
NO_TOOLS = Rejected(r"leaves out (the tool calls|column `tools`|the content of message 3 \(tool\))")
NO_REASONING = Rejected(r"message 2 \(assistant\).*(leaves|reasoning)|leaves out `reasoning_content`")
ALTERNATE = Rejected(r"rejects this conversation at message \d \(\w+\): .*roles must alternate")


@dataclass(frozen=True)
class Family:
    """A chat template, the tokens of its tokenizer and what is known of it.

    ``stops`` are the ends of sequence that the model's ``generation_config.json`` declares, ``ends`` the tokens that
    end an assistant's turn. ``expected`` are what `CONVERSATIONS` become.
    """

    known_for: str
    compared_with: str
    make: str
    special: tuple[str, ...]
    bos: str | None
    eos: str
    stops: tuple[str, ...]
    ends: tuple[str, ...]
    expected: Mapping[str, Expected]
    added: tuple[str, ...] = ()
    rstrip: bool = False
    arguments: Mapping[str, Any] = field(default_factory=dict)
    template: str | None = None

    def tokenizer(self, name: str, make: str | None = None) -> PreTrainedTokenizerFast:
        return make_tokenizer(
            make or self.make,
            special=self.special,
            added=self.added,
            bos=self.bos,
            eos=self.eos,
            rstrip=self.rstrip,
            template=template_of(self.template or name),
        )


@cache
def template_of(name: str) -> str:
    return (Path(__file__).parent / "templates" / f"{name}.jinja").read_text()


def _with_thinking(two: str) -> str:
    """The conversation `thinking`, of which the template writes content as it is."""
    before, yes, between, no = _cut(two)
    return f"{before}{yes.replace('yes', _THOUGHT[0], 1)}{between}{no.replace('no', _THOUGHT[1], 1)}"


def _cut(two: str) -> tuple[str, str, str, str]:
    first, second = two.index("«"), two.rindex("«")
    middle = two.index("»")
    return two[:first], two[first:middle], two[middle:second], two[second:]


def _expected(one: str, more: str, system: Expected, **others: Expected) -> dict[str, Expected]:
    """``more`` is what a second turn adds to the sample of the first."""
    found: dict[str, Expected] = {
        "one": one,
        "two": one + more,
        "system": system,
        "thinking": _with_thinking(one + more),
    }
    return found | {key.replace("_", " "): value for key, value in others.items()}


_CHATML = ("<|im_start|>", "<|im_end|>", "<|endoftext|>")
_HI = "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
_ONE = f"{_HI}«yes<|im_end|>»"
_MORE = "\n<|im_start|>user\nwhy<|im_end|>\n<|im_start|>assistant\n«no<|im_end|>»"
_NICE = "<|im_start|>system\nbe nice<|im_end|>\n"
_SMOL = "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
_QWEN = "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant."
_CALLS = '<tool_call>\n{"name": "add", "arguments": {"x": 1}}\n</tool_call>'
_FOUND = "\n<|im_start|>user\n<tool_response>\n2\n</tool_response><|im_end|>\n<|im_start|>assistant\n"
_QWEN3_CALLED = (
    f"{_HI}«<think>\n\n</think>\n\n{_CALLS}<|im_end|>»",
    f"{_HI}{_CALLS}<|im_end|>{_FOUND}«<think>\n\n</think>\n\nyes<|im_end|>»",
)
_QWEN3_TOOLS = f"<|im_start|>system\n# Tools\n<tools>\n{TOOL}\n</tools><|im_end|>\n"
_L3 = "<|start_header_id|>{}<|end_header_id|>\n\n"
_L3_USER, _L3_ASSISTANT, _L3_SYSTEM = _L3.format("user"), _L3.format("assistant"), _L3.format("system")
_L32 = f"<|begin_of_text|>{_L3_SYSTEM}Cutting Knowledge Date: December 2023\nToday Date: 01 Mar 2026\n\n"
_LLAMA_3 = ("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
_MISTRAL = (
    *("[INST]", "[/INST]", "[TOOL_CALLS]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]"),
    *("[TOOL_RESULTS]", "[/TOOL_RESULTS]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]"),
)
_MISTRAL_CALL = '{"name": "add", "arguments": {"x": 1}, "id": "abcdefghi"}'
_MISTRAL_FOUND = '{"content": 2, "call_id": "abcdefghi"}'
_GEMMA = ("<start_of_turn>", "<end_of_turn>")
_GEMMA_MORE = "\n<start_of_turn>user\nwhy<end_of_turn>\n<start_of_turn>model\n«no<end_of_turn>»"
_DS_BOS, _DS_EOS = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"
_DEEPSEEK = (
    *("<｜User｜>", "<｜Assistant｜>", "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>", "<｜tool▁call▁begin｜>"),
    *("<｜tool▁call▁end｜>", "<｜tool▁sep｜>", "<｜tool▁outputs▁begin｜>", "<｜tool▁outputs▁end｜>"),
    *("<｜tool▁output▁begin｜>", "<｜tool▁output▁end｜>"),
)
_DS_HI = f"{_DS_BOS}<｜User｜>hi<｜Assistant｜>"
_DS_FOUND = "<｜tool▁output▁begin｜>2<｜tool▁output▁end｜>"
_OSS = (
    "<|start|>system<|message|>You are ChatGPT, a large language model trained by OpenAI.\nKnowledge cutoff: 2024-06\n"
    "Current date: 2026-03-01\n\nReasoning: medium\n\n"
    "# Valid channels: analysis, commentary, final. Channel must be included for every message."
)
_OSS_HI = "<|start|>user<|message|>hi<|end|><|start|>assistant"
_OSS_YES = "<|channel|>final<|message|>yes"
_OSS_WHY = "<|start|>user<|message|>why<|end|><|start|>assistant"
_OSS_NO = "<|channel|>final<|message|>no<|return|>"
_GRANITE = (
    "<|start_of_role|>system<|end_of_role|>Knowledge Cutoff Date: April 2024.\nToday's Date: March 01, 2026.\n"
    "You are Granite, developed by IBM."
)
_GRANITE_HI = (
    "<|end_of_text|>\n<|start_of_role|>user<|end_of_role|>hi<|end_of_text|>\n<|start_of_role|>assistant<|end_of_role|>"
)
_SMOL3 = (
    "<|im_start|>system\n## Metadata\n\nKnowledge Cutoff Date: June 2025\nToday Date: 01 March 2026\nReasoning Mode: "
)
_HY = ("<｜hy_User｜>", "<｜hy_Assistant｜>", "<｜hy_place▁holder▁no▁3｜>", "<｜hy_place▁holder▁no▁8｜>")
_HY_BOS, _HY_EOS = "<｜hy_begin▁of▁sentence｜>", "<｜hy_place▁holder▁no▁2｜>"
_COMMAND = (
    "<|START_OF_TURN_TOKEN|>",
    "<|END_OF_TURN_TOKEN|>",
    "<|SYSTEM_TOKEN|>",
    "<|USER_TOKEN|>",
    "<|CHATBOT_TOKEN|>",
)
_COMMAND_HI = (
    "<|START_OF_TURN_TOKEN|><|USER_TOKEN|>hi<|END_OF_TURN_TOKEN|><|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>"
    "«yes<|END_OF_TURN_TOKEN|>»"
)

FAMILIES: dict[str, Family] = {
    "smollm2": Family(
        known_for="ChatML with a system message of its own",
        compared_with="ChatML of llama.cpp's tests/test-chat-template.cpp, with the system message given",
        make="byte_level",
        special=_CHATML,
        bos="<|im_start|>",
        eos="<|im_end|>",
        stops=("<|im_end|>",),
        ends=("<|im_end|>",),
        expected=_expected(_SMOL + _ONE, _MORE, _NICE + _ONE, tools=NO_TOOLS, reasoning=NO_REASONING),
    ),
    "yi": Family(
        known_for="bare ChatML on a tokenizer whose end of sequence is another",
        compared_with="unsloth 2026.10.9 yi_chat_template",
        make="sentencepiece",
        special=_CHATML,
        bos=None,
        eos="<|endoftext|>",
        stops=("<|endoftext|>",),
        ends=("<|im_end|>",),
        expected=_expected(_ONE, _MORE, _NICE + _ONE, tools=NO_TOOLS),
    ),
    "qwen2_5": Family(
        known_for="the base model's end of sequence is <|endoftext|>, which its template never writes; tools",
        compared_with="trl 1.16.0 chat_templates/qwen2_5.jinja",
        make="byte_level",
        special=_CHATML,
        bos=None,
        eos="<|endoftext|>",
        stops=("<|endoftext|>",),
        ends=("<|im_end|>",),
        expected=_expected(
            f"{_QWEN}<|im_end|>\n{_ONE}",
            _MORE,
            _NICE + _ONE,
            tools=f"{_QWEN}\n\n# Tools\n<tools>\n{TOOL}\n</tools><|im_end|>\n"
            f"{_HI}«{_CALLS}<|im_end|>»{_FOUND}«yes<|im_end|>»",
            reasoning=NO_REASONING,
        ),
    ),
    "qwen3": Family(
        known_for="drops the thinking of earlier turns, and writes an empty one into the last",
        compared_with="trl 1.16.0 chat_templates/qwen3.jinja",
        make="byte_level",
        special=_CHATML,
        added=("<think>", "</think>", "<tool_call>", "</tool_call>"),
        bos=None,
        eos="<|im_end|>",
        stops=("<|im_end|>", "<|endoftext|>"),
        ends=("<|im_end|>",),
        expected={
            "one": f"{_HI}«<think>\n\n</think>\n\nyes<|im_end|>»",
            "two": (
                f"{_HI}«<think>\n\n</think>\n\nyes<|im_end|>»",
                f"{_HI}yes<|im_end|>\n<|im_start|>user\nwhy<|im_end|>\n<|im_start|>assistant\n"
                "«<think>\n\n</think>\n\nno<|im_end|>»",
            ),
            "system": f"{_NICE}{_HI}«<think>\n\n</think>\n\nyes<|im_end|>»",
            "thinking": (
                f"{_HI}«<think>\nhmm\n</think>\n\nyes<|im_end|>»",
                f"{_HI}yes<|im_end|>\n<|im_start|>user\nwhy<|im_end|>\n<|im_start|>assistant\n"
                "«<think>\num\n</think>\n\nno<|im_end|>»",
            ),
            "reasoning": f"{_HI}«<think>\nhmm\n</think>\n\nyes<|im_end|>»",
            "tools": (_QWEN3_TOOLS + _QWEN3_CALLED[0], _QWEN3_TOOLS + _QWEN3_CALLED[1]),
            "calls": _QWEN3_CALLED,
            "documents": Rejected("leaves out column `documents`"),
        },
    ),
    "qwen3_without_thinking": Family(
        known_for="enable_thinking=False puts an empty thinking into the prompt",
        compared_with="trl 1.16.0 chat_templates/qwen3.jinja",
        make="byte_level",
        special=_CHATML,
        added=("<think>", "</think>"),
        bos=None,
        eos="<|im_end|>",
        stops=("<|im_end|>", "<|endoftext|>"),
        ends=("<|im_end|>",),
        arguments={"enable_thinking": False},
        template="qwen3",
        expected={
            "one": f"{_HI}<think>\n\n</think>\n\n«yes<|im_end|>»",
            "two": (
                f"{_HI}<think>\n\n</think>\n\n«yes<|im_end|>»",
                f"{_HI}yes<|im_end|>\n<|im_start|>user\nwhy<|im_end|>\n<|im_start|>assistant\n"
                "<think>\n\n</think>\n\n«no<|im_end|>»",
            ),
            "system": f"{_NICE}{_HI}<think>\n\n</think>\n\n«yes<|im_end|>»",
            "thinking": Rejected("has thinking, for which the generation prompt leaves no room"),
        },
    ),
    "llama2": Family(
        known_for="[INST] and <<SYS>> as plain text, BOS before each turn of the user, no generation prompt",
        compared_with="unsloth 2026.10.9 llama_template",
        make="sentencepiece_legacy",
        special=("<unk>",),
        bos="<s>",
        eos="</s>",
        stops=("</s>",),
        ends=("</s>",),
        expected=_expected(
            "<s>[INST] hi [/INST]« yes </s>»",
            "<s>[INST] why [/INST]« no </s>»",
            "<s>[INST] <<SYS>>\nbe nice\n<</SYS>>\n\nhi [/INST]« yes </s>»",
            calls=Rejected("Only user and assistant roles are supported|leaves out the tool calls"),
        ),
    ),
    "llama3": Family(
        known_for="BOS is the template's; content loses the blanks around it",
        compared_with="trl 1.16.0 chat_templates/llama3.jinja",
        make="byte_level",
        special=_LLAMA_3,
        bos="<|begin_of_text|>",
        eos="<|end_of_text|>",
        stops=("<|end_of_text|>", "<|eot_id|>"),
        ends=("<|eot_id|>",),
        expected=_expected(
            f"<|begin_of_text|>{_L3_USER}hi<|eot_id|>{_L3_ASSISTANT}«yes<|eot_id|>»",
            f"{_L3_USER}why<|eot_id|>{_L3_ASSISTANT}«no<|eot_id|>»",
            f"<|begin_of_text|>{_L3_SYSTEM}be nice<|eot_id|>{_L3_USER}hi<|eot_id|>{_L3_ASSISTANT}«yes<|eot_id|>»",
            tools=NO_TOOLS,
        ),
    ),
    "llama3_2": Family(
        known_for="writes today's date; one tool call in a turn",
        compared_with="trl 1.16.0 chat_templates/llama3_2.jinja",
        make="byte_level",
        special=(*_LLAMA_3, "<|eom_id|>"),
        bos="<|begin_of_text|>",
        eos="<|eot_id|>",
        stops=("<|end_of_text|>", "<|eom_id|>", "<|eot_id|>"),
        ends=("<|eot_id|>",),
        expected=_expected(
            f"{_L32}<|eot_id|>{_L3_USER}hi<|eot_id|>{_L3_ASSISTANT}«yes<|eot_id|>»",
            f"{_L3_USER}why<|eot_id|>{_L3_ASSISTANT}«no<|eot_id|>»",
            f"{_L32}be nice<|eot_id|>{_L3_USER}hi<|eot_id|>{_L3_ASSISTANT}«yes<|eot_id|>»",
            tools=f"{_L32.replace('Cutting', 'Environment: ipython' + chr(10) + 'Cutting')}<|eot_id|>{_L3_USER}"
            f'Functions:\n\n[{TOOL}]\n\nhi<|eot_id|>{_L3_ASSISTANT}«{{"name": "add", "parameters": {{"x": 1}}}}'
            f'<|eot_id|>»{_L3.format("ipython")}"2"<|eot_id|>{_L3_ASSISTANT}«yes<|eot_id|>»',
        ),
    ),
    "mixtral": Family(
        known_for="turns alternate from the first, so that a system message is an error",
        compared_with="Mistral-7B-Instruct-v0.2 of llama.cpp's tests/test-chat-template.cpp",
        make="sentencepiece_legacy",
        special=("<unk>",),
        bos="<s>",
        eos="</s>",
        stops=("</s>",),
        ends=("</s>",),
        expected=_expected(
            "<s>[INST] hi [/INST]«yes</s>»", "[INST] why [/INST]«no</s>»", ALTERNATE, two_answers=ALTERNATE
        ),
    ),
    "mistral_v1": Family(
        known_for="the system message goes into the first question",
        compared_with="axolotl 0.19.0 templates/mistral_v1.jinja",
        make="sentencepiece_legacy",
        special=("<unk>",),
        bos="<s>",
        eos="</s>",
        stops=("</s>",),
        ends=("</s>",),
        expected=_expected(
            "<s> [INST] hi [/INST]« yes</s>»",
            " [INST] why [/INST]« no</s>»",
            "<s> [INST] be nice\n\nhi [/INST]« yes</s>»",
            two_answers=ALTERNATE,
        ),
    ),
    "mistral_v3": Family(
        known_for="system message and tools go into the last question; calls have ids of nine characters",
        compared_with="axolotl 0.19.0 templates/mistral_v2v3.jinja",
        make="sentencepiece_legacy",
        special=_MISTRAL,
        bos="<s>",
        eos="</s>",
        stops=("</s>",),
        ends=("</s>",),
        expected=_expected(
            "<s>[INST] hi[/INST]« yes</s>»",
            "[INST] why[/INST]« no</s>»",
            "<s>[INST] be nice\n\nhi[/INST]« yes</s>»",
            system_and_two=(
                "<s>[INST] be nice\n\nhi[/INST]« yes</s>»",
                "<s>[INST] hi[/INST] yes</s>[INST] be nice\n\nwhy[/INST]« no</s>»",
            ),
            tools=f"<s>[AVAILABLE_TOOLS] [{TOOL}][/AVAILABLE_TOOLS][INST] hi[/INST]«[TOOL_CALLS] [{_MISTRAL_CALL}]</s>»"
            f"[TOOL_RESULTS] {_MISTRAL_FOUND}[/TOOL_RESULTS]« yes</s>»",
            two_answers=ALTERNATE,
        ),
    ),
    "mistral_nemo": Family(
        known_for="the same on a byte-level tokenizer, without blanks",
        compared_with="axolotl 0.19.0 templates/mistral_v3_tekken.jinja",
        make="byte_level",
        special=_MISTRAL,
        bos="<s>",
        eos="</s>",
        stops=("</s>",),
        ends=("</s>",),
        expected=_expected(
            "<s>[INST]hi[/INST]«yes</s>»",
            "[INST]why[/INST]«no</s>»",
            "<s>[INST]be nice\n\nhi[/INST]«yes</s>»",
            system_and_two=(
                "<s>[INST]be nice\n\nhi[/INST]«yes</s>»",
                "<s>[INST]hi[/INST]yes</s>[INST]be nice\n\nwhy[/INST]«no</s>»",
            ),
            tools=f"<s>[AVAILABLE_TOOLS][{TOOL}][/AVAILABLE_TOOLS][INST]hi[/INST]«[TOOL_CALLS][{_MISTRAL_CALL}]</s>»"
            f"[TOOL_RESULTS]{_MISTRAL_FOUND}[/TOOL_RESULTS]«yes</s>»",
        ),
    ),
    "mistral_small": Family(
        known_for="a system prompt of its own with today's date",
        compared_with="axolotl 0.19.0 templates/mistral_v7_tekken.jinja, with the system message given",
        make="byte_level",
        special=_MISTRAL,
        bos="<s>",
        eos="</s>",
        stops=("</s>",),
        ends=("</s>",),
        expected=_expected(
            "<s>[SYSTEM_PROMPT]The current date is 2026-03-01.[/SYSTEM_PROMPT][INST]hi[/INST]«yes</s>»",
            "[INST]why[/INST]«no</s>»",
            "<s>[SYSTEM_PROMPT]be nice[/SYSTEM_PROMPT][INST]hi[/INST]«yes</s>»",
            calls=Rejected("Only user, system and assistant roles are supported|leaves out the tool calls"),
        ),
    ),
    "gemma2": Family(
        known_for="no system message; the assistant is called model",
        compared_with="trl 1.16.0 chat_templates/gemma.jinja",
        make="unigram",
        special=_GEMMA,
        bos="<bos>",
        eos="<eos>",
        stops=("<eos>", "<end_of_turn>"),
        ends=("<end_of_turn>",),
        expected=_expected(
            "<bos><start_of_turn>user\nhi<end_of_turn>\n<start_of_turn>model\n«yes<end_of_turn>»",
            _GEMMA_MORE,
            Rejected(r"rejects this conversation at message 1 \(system\): System role not supported"),
            two_answers=ALTERNATE,
        ),
    ),
    "gemma3": Family(
        known_for="the system message goes into the first question; takes content as text and as parts",
        compared_with="trl 1.16.0 chat_templates/gemma3.jinja",
        make="unigram",
        special=_GEMMA,
        bos="<bos>",
        eos="<eos>",
        stops=("<eos>", "<end_of_turn>"),
        ends=("<end_of_turn>",),
        expected=_expected(
            "<bos><start_of_turn>user\nhi<end_of_turn>\n<start_of_turn>model\n«yes<end_of_turn>»",
            _GEMMA_MORE,
            "<bos><start_of_turn>user\nbe nice\n\nhi<end_of_turn>\n<start_of_turn>model\n«yes<end_of_turn>»",
        ),
    ),
    "phi3_5": Family(
        known_for="an end of sequence after everything; special tokens take the line breaks after them",
        compared_with="trl 1.16.0 chat_templates/phi3_5.jinja",
        make="sentencepiece_legacy",
        special=("<|system|>", "<|user|>", "<|assistant|>", "<|end|>"),
        rstrip=True,
        bos="<s>",
        eos="<|endoftext|>",
        stops=("<|end|>", "<|assistant|>", "<|endoftext|>"),
        ends=("<|end|>",),
        expected=_expected(
            "<|user|>hi<|end|><|assistant|>«yes<|end|>»",
            "<|user|>why<|end|><|assistant|>«no<|end|>»",
            "<|system|>be nice<|end|><|user|>hi<|end|><|assistant|>«yes<|end|>»",
            calls=Rejected("leaves out"),
        ),
    ),
    "phi4": Family(
        known_for="<|im_sep|> instead of a line break",
        compared_with="unsloth 2026.10.9 phi4_template",
        make="byte_level",
        special=("<|im_start|>", "<|im_sep|>", "<|im_end|>"),
        bos="<|endoftext|>",
        eos="<|im_end|>",
        stops=("<|im_end|>", "<|endoftext|>"),
        ends=("<|im_end|>",),
        expected=_expected(
            "<|im_start|>user<|im_sep|>hi<|im_end|><|im_start|>assistant<|im_sep|>«yes<|im_end|>»",
            "<|im_start|>user<|im_sep|>why<|im_end|><|im_start|>assistant<|im_sep|>«no<|im_end|>»",
            "<|im_start|>system<|im_sep|>be nice<|im_end|><|im_start|>user<|im_sep|>hi<|im_end|>"
            "<|im_start|>assistant<|im_sep|>«yes<|im_end|>»",
        ),
    ),
    "deepseek_v2": Family(
        known_for="roles as plain text; the answer begins with a blank",
        compared_with="DeepSeek-V2 of llama.cpp's tests/test-chat-template.cpp",
        make="byte_level",
        special=(),
        bos=_DS_BOS,
        eos=_DS_EOS,
        stops=(_DS_EOS,),
        ends=(_DS_EOS,),
        expected=_expected(
            f"{_DS_BOS}User: hi\n\nAssistant:« yes{_DS_EOS}»",
            f"User: why\n\nAssistant:« no{_DS_EOS}»",
            f"{_DS_BOS}be nice\n\nUser: hi\n\nAssistant:« yes{_DS_EOS}»",
            calls=Rejected("leaves out"),
        ),
    ),
    "deepseek_v3": Family(
        known_for="arguments of calls are texts; no list of tools; no generation prompt after a tool",
        compared_with="trl 1.16.0 chat_templates/deepseekv3.jinja, but for the <think> of its generation prompt",
        make="byte_level",
        special=_DEEPSEEK,
        bos=_DS_BOS,
        eos=_DS_EOS,
        stops=(_DS_EOS,),
        ends=(_DS_EOS,),
        expected=_expected(
            f"{_DS_HI}«yes{_DS_EOS}»",
            f"<｜User｜>why<｜Assistant｜>«no{_DS_EOS}»",
            f"{_DS_BOS}be nice<｜User｜>hi<｜Assistant｜>«yes{_DS_EOS}»",
            tools=Rejected("leaves out column `tools`"),
            calls=f"{_DS_HI}«<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>add\n```json\n"
            f'{{"x": 1}}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>{_DS_EOS}»'
            f"<｜tool▁outputs▁begin｜>{_DS_FOUND}<｜tool▁outputs▁end｜>«yes{_DS_EOS}»",
        ),
    ),
    "deepseek_v3_1": Family(
        known_for="the prompt closes thinking, and thinking in an answer is dropped",
        compared_with="llama.cpp's models/templates/deepseek-ai-DeepSeek-V3.1.jinja",
        make="byte_level",
        special=_DEEPSEEK,
        added=("<think>", "</think>"),
        bos=_DS_BOS,
        eos=_DS_EOS,
        stops=(_DS_EOS,),
        ends=(_DS_EOS,),
        expected={
            "one": f"{_DS_HI}</think>«yes{_DS_EOS}»",
            "two": f"{_DS_HI}</think>«yes{_DS_EOS}»<｜User｜>why<｜Assistant｜></think>«no{_DS_EOS}»",
            "system": f"{_DS_BOS}be nice<｜User｜>hi<｜Assistant｜></think>«yes{_DS_EOS}»",
            "thinking": Rejected(r"message 2 \(assistant\).*thinking"),
            "calls": f"{_DS_HI}</think>«<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>add<｜tool▁sep｜>"
            f'{{"x": 1}}<｜tool▁call▁end｜><｜tool▁calls▁end｜>{_DS_EOS}»{_DS_FOUND}«yes{_DS_EOS}»',
        },
    ),
    "deepseek_v3_1_thinking": Family(
        known_for="with thinking=True the prompt opens it",
        compared_with="llama.cpp's models/templates/deepseek-ai-DeepSeek-V3.1.jinja",
        make="byte_level",
        special=_DEEPSEEK,
        added=("<think>", "</think>"),
        bos=_DS_BOS,
        eos=_DS_EOS,
        stops=(_DS_EOS,),
        ends=(_DS_EOS,),
        arguments={"thinking": True},
        template="deepseek_v3_1",
        expected={
            "one": Rejected("opens <think>"),
            "thinking": (
                f"{_DS_HI}<think>«\nhmm\n</think>\n\nyes{_DS_EOS}»",
                f"{_DS_HI}</think>\n\nyes{_DS_EOS}<｜User｜>why<｜Assistant｜><think>«\num\n</think>\n\nno{_DS_EOS}»",
            ),
        },
    ),
    "deepseek_r1_distill": Family(
        known_for="the prompt opens <think>, and the conversation drops all thinking",
        compared_with="trl 1.16.0 chat_templates/deepseek_r1_distill.jinja",
        make="byte_level",
        special=_DEEPSEEK,
        added=("<think>", "</think>"),
        bos=_DS_BOS,
        eos=_DS_EOS,
        stops=(_DS_EOS,),
        ends=(_DS_EOS,),
        expected={
            "one": Rejected(r"message 2 \(assistant\): the generation prompt of the chat template opens <think>"),
            "thinking": (
                f"{_DS_HI}<think>\n«hmm\n</think>\n\nyes{_DS_EOS}»",
                f"{_DS_HI}\n\nyes{_DS_EOS}<｜User｜>why<｜Assistant｜><think>\n«um\n</think>\n\nno{_DS_EOS}»",
            ),
            "reasoning": f"{_DS_HI}<think>\n«hmm\n</think>\n\nyes{_DS_EOS}»",
            "calls": Rejected("leaves out the tool calls"),
        },
    ),
    "glm4_5": Family(
        known_for="no token ends a turn: the one that begins the next does",
        compared_with="trl 1.16.0 chat_templates/glm4moe.jinja",
        make="byte_level",
        special=("[gMASK]", "<sop>", "<|system|>", "<|user|>", "<|assistant|>", "<|observation|>"),
        added=("<think>", "</think>", "<tool_call>", "</tool_call>"),
        bos=None,
        eos="<|endoftext|>",
        stops=("<|endoftext|>", "<|user|>", "<|observation|>"),
        ends=("<|user|>", "<|observation|>"),
        expected={
            "one": "[gMASK]<sop><|user|>\nhi<|assistant|>«\n<think></think>\nyes<|user|>»",
            "two": "[gMASK]<sop><|user|>\nhi<|assistant|>«\n<think></think>\nyes<|user|>»"
            "\nwhy<|assistant|>«\n<think></think>\nno<|user|>»",
            "system": "[gMASK]<sop><|system|>\nbe nice<|user|>\nhi<|assistant|>«\n<think></think>\nyes<|user|>»",
            "thinking": (
                "[gMASK]<sop><|user|>\nhi<|assistant|>«\n<think>hmm</think>\nyes<|user|>»",
                "[gMASK]<sop><|user|>\nhi<|assistant|>\n<think></think>\nyes<|user|>\nwhy<|assistant|>"
                "«\n<think>um</think>\nno<|user|>»",
            ),
            "tools": f"[gMASK]<sop><|system|>\n# Tools\n<tools>\n{TOOL}\n</tools><|user|>\nhi<|assistant|>"
            "«\n<think></think>\n<tool_call>add\n<arg_key>x</arg_key>\n<arg_value>1</arg_value>\n</tool_call>"
            "<|observation|>»\n<tool_response>\n2\n</tool_response><|assistant|>«\n<think></think>\nyes<|user|>»",
        },
    ),
    "gpt_oss": Family(
        known_for="channels; a last answer ends with <|return|>, earlier ones with <|end|>, calls with <|call|>; date",
        compared_with="trl 1.16.0 chat_templates/gptoss.jinja",
        make="byte_level",
        special=("<|start|>", "<|channel|>", "<|message|>", "<|end|>", "<|return|>", "<|call|>"),
        bos="<|startoftext|>",
        eos="<|return|>",
        stops=("<|return|>", "<|call|>", "<|endoftext|>"),
        ends=("<|return|>",),
        expected={
            "one": f"{_OSS}<|end|>{_OSS_HI}«{_OSS_YES}<|return|>»",
            "two": (
                f"{_OSS}<|end|>{_OSS_HI}«{_OSS_YES}<|return|>»",
                f"{_OSS}<|end|>{_OSS_HI}{_OSS_YES}<|end|>{_OSS_WHY}«{_OSS_NO}»",
            ),
            "system": f"{_OSS}<|end|><|start|>developer<|message|># Instructions\n\nbe nice\n\n<|end|>"
            f"{_OSS_HI}«{_OSS_YES}<|return|>»",
            "tools": f"{_OSS}\nCalls to these tools must go to the commentary channel: 'functions'.<|end|>"
            f"<|start|>developer<|message|># Tools\n\n[{TOOL}]<|end|>{_OSS_HI}"
            '« to=functions.add<|channel|>commentary json<|message|>{"x": 1}<|call|>»'
            '<|start|>functions.add to=assistant<|channel|>commentary<|message|>"2"<|end|><|start|>assistant'
            f"«{_OSS_YES}<|return|>»",
        },
    ),
    "granite3": Family(
        known_for="date, documents, tools",
        compared_with="the text of granite-3.3-8b-instruct with documents in llm-d's kv-cache tests",
        make="byte_level",
        special=("<|start_of_role|>", "<|end_of_role|>", "<|tool_call|>"),
        bos="<|end_of_text|>",
        eos="<|end_of_text|>",
        stops=("<|end_of_text|>",),
        ends=("<|end_of_text|>",),
        expected=_expected(
            f"{_GRANITE} You are a helpful AI assistant.{_GRANITE_HI}«yes<|end_of_text|>»",
            "\n<|start_of_role|>user<|end_of_role|>why<|end_of_text|>\n<|start_of_role|>assistant<|end_of_role|>"
            "«no<|end_of_text|>»",
            f"<|start_of_role|>system<|end_of_role|>be nice{_GRANITE_HI}«yes<|end_of_text|>»",
            tools=f"{_GRANITE} You are a helpful AI assistant.<|end_of_text|>\n"
            f"<|start_of_role|>available_tools<|end_of_role|>[{TOOL}]{_GRANITE_HI}"
            '«<|tool_call|>[{"name": "add", "arguments": {"x": 1}}]<|end_of_text|>»'
            "\n<|start_of_role|>tool_response<|end_of_role|>2<|end_of_text|>\n"
            "<|start_of_role|>assistant<|end_of_role|>«yes<|end_of_text|>»",
            documents=f"{_GRANITE}<|end_of_text|>\n"
            f'<|start_of_role|>document {{"document_id": "1"}}<|end_of_role|>\nRivers flow.{_GRANITE_HI}'
            "«yes<|end_of_text|>»",
        ),
    ),
    "command_r": Family(
        known_for="turns of three tokens; roles alternate; the default template knows no tools and no documents",
        compared_with="trl 1.16.0 chat_templates/cohere.jinja",
        make="byte_level",
        special=_COMMAND,
        bos="<BOS_TOKEN>",
        eos="<|END_OF_TURN_TOKEN|>",
        stops=("<|END_OF_TURN_TOKEN|>",),
        ends=("<|END_OF_TURN_TOKEN|>",),
        expected=_expected(
            f"<BOS_TOKEN>{_COMMAND_HI}",
            _COMMAND_HI.replace("hi", "why").replace("yes", "no"),
            f"<BOS_TOKEN><|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|>be nice<|END_OF_TURN_TOKEN|>{_COMMAND_HI}",
            documents=Rejected("leaves out column `documents`"),
            calls=ALTERNATE,
        ),
    ),
    "olmo2": Family(
        known_for="BOS and end of sequence are one token; roles are plain text",
        compared_with="the tulu template of which OLMo 2's is one with BOS",
        make="byte_level",
        special=(),
        bos="<|endoftext|>",
        eos="<|endoftext|>",
        stops=("<|endoftext|>",),
        ends=("<|endoftext|>",),
        expected=_expected(
            "<|endoftext|><|user|>\nhi\n<|assistant|>\n«yes<|endoftext|>»",
            "\n<|user|>\nwhy\n<|assistant|>\n«no<|endoftext|>»",
            "<|endoftext|><|system|>\nbe nice\n<|user|>\nhi\n<|assistant|>\n«yes<|endoftext|>»",
            calls=Rejected("leaves out"),
        ),
    ),
    "falcon3": Family(
        known_for="a line break after each end but the last",
        compared_with="the tulu template, which its text equals without tools",
        make="byte_level",
        special=("<|system|>", "<|user|>", "<|assistant|>"),
        bos=None,
        eos="<|endoftext|>",
        stops=("<|endoftext|>",),
        ends=("<|endoftext|>",),
        expected=_expected(
            "<|user|>\nhi\n<|assistant|>\n«yes<|endoftext|>»",
            "\n<|user|>\nwhy\n<|assistant|>\n«no<|endoftext|>»",
            "<|system|>\nbe nice\n<|user|>\nhi\n<|assistant|>\n«yes<|endoftext|>»",
        ),
    ),
    "zephyr": Family(
        known_for="roles that look like special tokens and are plain text",
        compared_with="unsloth 2026.10.9 zephyr_template",
        make="sentencepiece_legacy",
        special=("<unk>",),
        bos="<s>",
        eos="</s>",
        stops=("</s>",),
        ends=("</s>",),
        expected=_expected(
            "<|user|>\nhi</s>\n<|assistant|>\n«yes</s>»",
            "\n<|user|>\nwhy</s>\n<|assistant|>\n«no</s>»",
            "<|system|>\nbe nice</s>\n<|user|>\nhi</s>\n<|assistant|>\n«yes</s>»",
        ),
    ),
    "vicuna": Family(
        known_for="USER and ASSISTANT as plain text; the answer begins with a blank",
        compared_with="unsloth 2026.10.9 vicuna_template, with the system message given",
        make="sentencepiece_legacy",
        special=("<unk>",),
        bos="<s>",
        eos="</s>",
        stops=("</s>",),
        ends=("</s>",),
        expected=_expected(
            "<s>A chat. USER: hi ASSISTANT:« yes</s>»",
            "USER: why ASSISTANT:« no</s>»",
            "<s>be nice USER: hi ASSISTANT:« yes</s>»",
        ),
    ),
    "openchat": Family(
        known_for="an end of turn that is not the tokenizer's end of sequence",
        compared_with="unsloth 2026.10.9 starling_template",
        make="sentencepiece_legacy",
        special=("<|end_of_turn|>",),
        bos="<s>",
        eos="</s>",
        stops=("</s>",),
        ends=("<|end_of_turn|>",),
        expected=_expected(
            "<s>GPT4 Correct User: hi<|end_of_turn|>GPT4 Correct Assistant:« yes<|end_of_turn|>»",
            "GPT4 Correct User: why<|end_of_turn|>GPT4 Correct Assistant:« no<|end_of_turn|>»",
            "<s>GPT4 Correct System: be nice<|end_of_turn|>GPT4 Correct User: hi<|end_of_turn|>"
            "GPT4 Correct Assistant:« yes<|end_of_turn|>»",
        ),
    ),
    "smollm3": Family(
        known_for="date; /no_think; a {% generation %} block around the whole turn, opening and line break included",
        compared_with="none at hand; written after its description",
        make="byte_level",
        special=_CHATML,
        added=("<think>", "</think>"),
        bos=None,
        eos="<|im_end|>",
        stops=("<|im_end|>",),
        ends=("<|im_end|>",),
        expected=_expected(
            f"{_SMOL3}/think\n\n<|im_end|>\n{_ONE}",
            _MORE,
            f"{_SMOL3}/think\n\nbe nice<|im_end|>\n{_ONE}",
            no_thinking=f"{_SMOL3}/no_think\n\n<|im_end|>\n{_HI}<think>\n\n</think>\n«yes<|im_end|>»",
        ),
    ),
    "minicpm": Family(
        known_for="no token ends a turn at all",
        compared_with="MiniCPM-3B of llama.cpp's tests/test-chat-template.cpp",
        make="sentencepiece_legacy",
        special=("<unk>",),
        bos="<s>",
        eos="</s>",
        stops=("</s>",),
        ends=("</s>",),
        expected={
            "one": "<用户>hi<AI>«yes</s>»",
            "two": ("<用户>hi<AI>«yes</s>»", "<用户>hi<AI>yes<用户>why<AI>«no</s>»"),
            "system": "be nice<用户>hi<AI>«yes</s>»",
        },
    ),
    "hunyuan": Family(
        known_for="place holders as ends; another one after everything",
        compared_with="none at hand; written after its description",
        make="byte_level",
        special=_HY,
        bos=_HY_BOS,
        eos=_HY_EOS,
        stops=(_HY_EOS,),
        ends=(_HY_EOS,),
        expected=_expected(
            f"{_HY_BOS}<｜hy_User｜>hi<｜hy_Assistant｜>«yes{_HY_EOS}»",
            f"<｜hy_User｜>why<｜hy_Assistant｜>«no{_HY_EOS}»",
            f"{_HY_BOS}be nice<｜hy_place▁holder▁no▁3｜><｜hy_User｜>hi<｜hy_Assistant｜>«yes{_HY_EOS}»",
        ),
    ),
    "ernie4_5": Family(
        known_for="the end of turn is another token than the end of sequence; the prompt ends with a blank",
        compared_with="none at hand; written after its description",
        make="sentencepiece",
        special=("<|begin_of_sentence|>", "<|end_of_sentence|>"),
        bos="<s>",
        eos="</s>",
        stops=("</s>",),
        ends=("<|end_of_sentence|>",),
        expected={
            "one": "<|begin_of_sentence|>User: hi\nAssistant: «yes<|end_of_sentence|>»",
            # The blank is a token of the prompt, and in the conversation so far a part of the answer's first.
            "two": (
                "<|begin_of_sentence|>User: hi\nAssistant: «yes<|end_of_sentence|>»",
                "<|begin_of_sentence|>User: hi\nAssistant: yes<|end_of_sentence|>"
                "User: why\nAssistant: «no<|end_of_sentence|>»",
            ),
            "system": "<|begin_of_sentence|>be nice\nUser: hi\nAssistant: «yes<|end_of_sentence|>»",
        },
    ),
    "smolvlm": Family(
        known_for="content must be a list of parts",
        compared_with="trl 1.16.0 chat_templates/smolvlm.jinja",
        make="byte_level",
        special=("<|im_start|>", "<end_of_utterance>"),
        bos="<|im_start|>",
        eos="<end_of_utterance>",
        stops=("<end_of_utterance>",),
        ends=("<end_of_utterance>",),
        expected=_expected(
            "<|im_start|>User: hi<end_of_utterance>\nAssistant:« yes<end_of_utterance>»",
            "\nUser: why<end_of_utterance>\nAssistant:« no<end_of_utterance>»",
            "<|im_start|>System: be nice<end_of_utterance>\nUser: hi<end_of_utterance>\nAssistant:"
            "« yes<end_of_utterance>»",
        ),
    ),
    "end_outside": Family(
        known_for="a {% generation %} block that leaves the end of turn outside",
        compared_with="ChatML of llama.cpp's tests/test-chat-template.cpp",
        make="byte_level",
        special=_CHATML,
        bos=None,
        eos="<|endoftext|>",
        stops=("<|endoftext|>",),
        ends=("<|im_end|>",),
        expected=_expected(_ONE, _MORE, _NICE + _ONE),
    ),
    "alpaca": Family(
        known_for="headings, and blank lines instead of an end",
        compared_with="none: a form of prompts, not a model's template",
        make="sentencepiece_legacy",
        special=("<unk>",),
        bos="<s>",
        eos="</s>",
        stops=("</s>",),
        ends=("</s>",),
        expected={
            "one": "### Instruction:\nhi\n\n### Response:\n«yes</s>»",
            "two": (
                "### Instruction:\nhi\n\n### Response:\n«yes</s>»",
                "### Instruction:\nhi\n\n### Response:\nyes\n\n### Instruction:\nwhy\n\n### Response:\n«no</s>»",
            ),
            "system": "be nice\n\n### Instruction:\nhi\n\n### Response:\n«yes</s>»",
        },
    ),
}
