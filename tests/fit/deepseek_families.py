"""Chinese families with role tokens: DeepSeek, GLM, Hunyuan, ERNIE."""

from __future__ import annotations

from family import NO_CALLS, TOOL, Family, Rejected, expected_of

_DS_BOS, _DS_EOS = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"
_DEEPSEEK = (
    *("<｜User｜>", "<｜Assistant｜>", "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>", "<｜tool▁call▁begin｜>"),
    *("<｜tool▁call▁end｜>", "<｜tool▁sep｜>", "<｜tool▁outputs▁begin｜>", "<｜tool▁outputs▁end｜>"),
    *("<｜tool▁output▁begin｜>", "<｜tool▁output▁end｜>"),
)
_DS_HI = f"{_DS_BOS}<｜User｜>hi<｜Assistant｜>"
_DS_FOUND = "<｜tool▁output▁begin｜>2<｜tool▁output▁end｜>"
_HY = ("<｜hy_User｜>", "<｜hy_Assistant｜>", "<｜hy_place▁holder▁no▁3｜>", "<｜hy_place▁holder▁no▁8｜>")
_HY_BOS, _HY_EOS = "<｜hy_begin▁of▁sentence｜>", "<｜hy_place▁holder▁no▁2｜>"

FAMILIES: dict[str, Family] = {
    "deepseek_v2": Family(
        known_for="roles as plain text; the answer begins with a blank",
        compared_with="DeepSeek-V2 of llama.cpp's tests/test-chat-template.cpp",
        make="byte_level",
        special=(),
        bos=_DS_BOS,
        eos=_DS_EOS,
        stops=(_DS_EOS,),
        ends=(_DS_EOS,),
        expected=expected_of(
            f"{_DS_BOS}User: hi\n\nAssistant:« yes{_DS_EOS}»",
            f"User: why\n\nAssistant:« no{_DS_EOS}»",
            f"{_DS_BOS}be nice\n\nUser: hi\n\nAssistant:« yes{_DS_EOS}»",
            calls=NO_CALLS,
        ),
    ),
    "deepseek_v3": Family(
        known_for="arguments of calls are texts; no list of tools; no generation prompt after a tool",
        compared_with="trl 1.16.0 chat_templates/deepseekv3.jinja, without the <think> of its prompt and its cuts",
        make="byte_level",
        special=_DEEPSEEK,
        bos=_DS_BOS,
        eos=_DS_EOS,
        stops=(_DS_EOS,),
        ends=(_DS_EOS,),
        expected=expected_of(
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
            "thinking": Rejected(r"leaves out the thinking of message 2 \(assistant\)"),
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
            "calls": NO_CALLS,
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
            "reasoning": "[gMASK]<sop><|user|>\nhi<|assistant|>«\n<think>hmm</think>\nyes<|user|>»",
            "tools": f"[gMASK]<sop><|system|>\n# Tools\n<tools>\n{TOOL}\n</tools><|user|>\nhi<|assistant|>"
            "«\n<think></think>\n<tool_call>add\n<arg_key>x</arg_key>\n<arg_value>1</arg_value>\n</tool_call>"
            "<|observation|>»\n<tool_response>\n2\n</tool_response><|assistant|>«\n<think></think>\nyes<|user|>»",
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
        expected=expected_of(
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
}
