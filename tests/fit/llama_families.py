"""Llama, Mistral and others that are written in plain text."""

from __future__ import annotations

from family import ALTERNATE, NO_CALLS, NO_TOOL_ROLE, TOOL, Family, expected_of

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

FAMILIES: dict[str, Family] = {
    "llama2": Family(
        known_for="[INST] and <<SYS>> as plain text, BOS before each turn of the user, no generation prompt",
        compared_with="unsloth 2026.10.9 llama_template",
        make="sentencepiece_legacy",
        special=("<unk>",),
        bos="<s>",
        eos="</s>",
        stops=("</s>",),
        ends=("</s>",),
        expected=expected_of(
            "<s>[INST] hi [/INST]« yes </s>»",
            "<s>[INST] why [/INST]« no </s>»",
            "<s>[INST] <<SYS>>\nbe nice\n<</SYS>>\n\nhi [/INST]« yes </s>»",
            calls=NO_TOOL_ROLE,
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
        expected=expected_of(
            f"<|begin_of_text|>{_L3_USER}hi<|eot_id|>{_L3_ASSISTANT}«yes<|eot_id|>»",
            f"{_L3_USER}why<|eot_id|>{_L3_ASSISTANT}«no<|eot_id|>»",
            f"<|begin_of_text|>{_L3_SYSTEM}be nice<|eot_id|>{_L3_USER}hi<|eot_id|>{_L3_ASSISTANT}«yes<|eot_id|>»",
            tools=NO_CALLS,
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
        expected=expected_of(
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
        expected=expected_of(
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
        expected=expected_of(
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
        expected=expected_of(
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
        expected=expected_of(
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
        expected=expected_of(
            "<s>[SYSTEM_PROMPT]The current date is 2026-03-01.[/SYSTEM_PROMPT][INST]hi[/INST]«yes</s>»",
            "[INST]why[/INST]«no</s>»",
            "<s>[SYSTEM_PROMPT]be nice[/SYSTEM_PROMPT][INST]hi[/INST]«yes</s>»",
            calls=NO_TOOL_ROLE,
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
        expected=expected_of(
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
        expected=expected_of(
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
        expected=expected_of(
            "<s>GPT4 Correct User: hi<|end_of_turn|>GPT4 Correct Assistant:« yes<|end_of_turn|>»",
            "GPT4 Correct User: why<|end_of_turn|>GPT4 Correct Assistant:« no<|end_of_turn|>»",
            "<s>GPT4 Correct System: be nice<|end_of_turn|>GPT4 Correct User: hi<|end_of_turn|>"
            "GPT4 Correct Assistant:« yes<|end_of_turn|>»",
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
        expected=expected_of(
            "<|user|>hi<|end|><|assistant|>«yes<|end|>»",
            "<|user|>why<|end|><|assistant|>«no<|end|>»",
            "<|system|>be nice<|end|><|user|>hi<|end|><|assistant|>«yes<|end|>»",
            calls=NO_CALLS,
        ),
    ),
}
