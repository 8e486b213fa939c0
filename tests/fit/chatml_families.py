"""Families of ChatML and its kin: SmolLM, Yi, Qwen, Phi-4."""

from __future__ import annotations

from family import NO_CALLS, NO_REASONING, TOOL, Family, Rejected, expected_of

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
_SMOL3 = (
    "<|im_start|>system\n## Metadata\n\nKnowledge Cutoff Date: June 2025\nToday Date: 01 March 2026\nReasoning Mode: "
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
        expected=expected_of(_SMOL + _ONE, _MORE, _NICE + _ONE, tools=NO_CALLS, reasoning=NO_REASONING),
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
        expected=expected_of(_ONE, _MORE, _NICE + _ONE, tools=NO_CALLS),
    ),
    "no_generation_prompt": Family(
        known_for="ChatML that ignores add_generation_prompt, as in many fine-tunes",
        compared_with="ChatML of llama.cpp's tests/test-chat-template.cpp, with its generation prompt",
        make="byte_level",
        special=_CHATML,
        bos=None,
        eos="<|im_end|>",
        stops=("<|im_end|>",),
        ends=("<|im_end|>",),
        expected=expected_of(
            _ONE,
            _MORE,
            _NICE + _ONE,
            tools=NO_CALLS,
            reasoning=NO_REASONING,
            two_answers=f"{_ONE}\n<|im_start|>assistant\n«no<|im_end|>»",
        ),
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
        expected=expected_of(
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
        expected=expected_of(
            f"{_SMOL3}/think\n\n<|im_end|>\n{_ONE}",
            _MORE,
            f"{_SMOL3}/think\n\nbe nice<|im_end|>\n{_ONE}",
            no_thinking=f"{_SMOL3}/no_think\n\n<|im_end|>\n{_HI}<think>\n\n</think>\n«yes<|im_end|>»",
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
        expected=expected_of(
            "<|im_start|>user<|im_sep|>hi<|im_end|><|im_start|>assistant<|im_sep|>«yes<|im_end|>»",
            "<|im_start|>user<|im_sep|>why<|im_end|><|im_start|>assistant<|im_sep|>«no<|im_end|>»",
            "<|im_start|>system<|im_sep|>be nice<|im_end|><|im_start|>user<|im_sep|>hi<|im_end|>"
            "<|im_start|>assistant<|im_sep|>«yes<|im_end|>»",
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
        expected=expected_of(_ONE, _MORE, _NICE + _ONE),
    ),
}
