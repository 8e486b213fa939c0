"""Gemma, gpt-oss, Granite, Command R, OLMo 2, Falcon 3, SmolVLM."""

from __future__ import annotations

from family import ALTERNATE, NO_CALLS, TOOL, Family, Rejected, expected_of

_GEMMA = ("<start_of_turn>", "<end_of_turn>")
_GEMMA_MORE = "\n<start_of_turn>user\nwhy<end_of_turn>\n<start_of_turn>model\n«no<end_of_turn>»"
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
    "gemma2": Family(
        known_for="no system message; the assistant is called model",
        compared_with="trl 1.16.0 chat_templates/gemma.jinja",
        make="unigram",
        special=_GEMMA,
        bos="<bos>",
        eos="<eos>",
        stops=("<eos>", "<end_of_turn>"),
        ends=("<end_of_turn>",),
        expected=expected_of(
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
        expected=expected_of(
            "<bos><start_of_turn>user\nhi<end_of_turn>\n<start_of_turn>model\n«yes<end_of_turn>»",
            _GEMMA_MORE,
            "<bos><start_of_turn>user\nbe nice\n\nhi<end_of_turn>\n<start_of_turn>model\n«yes<end_of_turn>»",
        ),
    ),
    "gpt_oss": Family(
        known_for="channels; a last answer ends with <|return|>, earlier ones with <|end|>, calls with <|call|>; date",
        compared_with="trl 1.16.0 chat_templates/gptoss.jinja",
        make="byte_level",
        special=("<|start|>", "<|channel|>", "<|message|>", "<|end|>", "<|return|>", "<|call|>"),
        bos="<|startoftext|>",
        eos="<|return|>",
        stops=("<|return|>", "<|call|>", "<|endoftext|>"),
        ends=("<|return|>", "<|call|>"),
        expected={
            "one": f"{_OSS}<|end|>{_OSS_HI}«{_OSS_YES}<|return|>»",
            "two": (
                f"{_OSS}<|end|>{_OSS_HI}«{_OSS_YES}<|return|>»",
                f"{_OSS}<|end|>{_OSS_HI}{_OSS_YES}<|end|>{_OSS_WHY}«{_OSS_NO}»",
            ),
            "system": f"{_OSS}<|end|><|start|>developer<|message|># Instructions\n\nbe nice\n\n<|end|>"
            f"{_OSS_HI}«{_OSS_YES}<|return|>»",
            "reasoning": f"{_OSS}<|end|>{_OSS_HI}«<|channel|>analysis<|message|>hmm<|end|>"
            f"<|start|>assistant{_OSS_YES}<|return|>»",
            "tools": f"{_OSS}\nCalls to these tools must go to the commentary channel: 'functions'.<|end|>"
            f"<|start|>developer<|message|># Tools\n\n[{TOOL}]<|end|>{_OSS_HI}"
            '« to=functions.add<|channel|>commentary json<|message|>{"x": 1}<|call|>»'
            '<|start|>functions.add to=assistant<|channel|>commentary<|message|>"2"<|end|><|start|>assistant'
            f"«{_OSS_YES}<|return|>»",
        },
    ),
    "granite3": Family(
        known_for="date, documents, tools",
        compared_with="a published rendering of granite-3.3-8b-instruct, without its sentence about documents",
        make="byte_level",
        special=("<|start_of_role|>", "<|end_of_role|>", "<|tool_call|>"),
        bos="<|end_of_text|>",
        eos="<|end_of_text|>",
        stops=("<|end_of_text|>",),
        ends=("<|end_of_text|>",),
        expected=expected_of(
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
        expected=expected_of(
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
        expected=expected_of(
            "<|endoftext|><|user|>\nhi\n<|assistant|>\n«yes<|endoftext|>»",
            "\n<|user|>\nwhy\n<|assistant|>\n«no<|endoftext|>»",
            "<|endoftext|><|system|>\nbe nice\n<|user|>\nhi\n<|assistant|>\n«yes<|endoftext|>»",
            calls=NO_CALLS,
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
        expected=expected_of(
            "<|user|>\nhi\n<|assistant|>\n«yes<|endoftext|>»",
            "\n<|user|>\nwhy\n<|assistant|>\n«no<|endoftext|>»",
            "<|system|>\nbe nice\n<|user|>\nhi\n<|assistant|>\n«yes<|endoftext|>»",
        ),
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
        expected=expected_of(
            "<|im_start|>User: hi<end_of_utterance>\nAssistant:« yes<end_of_utterance>»",
            "\nUser: why<end_of_utterance>\nAssistant:« no<end_of_utterance>»",
            "<|im_start|>System: be nice<end_of_utterance>\nUser: hi<end_of_utterance>\nAssistant:"
            "« yes<end_of_utterance>»",
        ),
    ),
}
