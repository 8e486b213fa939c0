"""Conversations of several turns: what is computed, what is drawn, and under which probabilities."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import pytest
import torch
from test_local_engine import scripted

from oracles import sampling as oracle
from sharpen.models.policy import Policy
from sharpen.rollout.engine import Engine, FinishedRequest, Request, Sampling, Snapshot
from sharpen.rollout.generation import run_block
from sharpen.rollout.local import torch_kv_cache
from sharpen.rollout.local.engine import LocalEngine
from sharpen.rollout.local.scheduler import Scheduler
from sharpen.rollout.sampling import uniforms
from tiny_models import tiny_policy

SEED = 17
FIRST = ("1+2=", "7", "12345+6789=", "9-9", "0000000", "3+3=")
SECOND = ("5", "#12-3", "0", "+", "98=", "7777")
"""What follows each answer: a tool's result, say."""
ARCHITECTURES = {
    "llama": ("llama", {}),
    "qwen2": ("qwen2", {}),
    "tied qwen3": ("qwen3", {"tie_word_embeddings": True}),
    "olmo2": ("olmo2", {}),
    "gpt2": ("gpt2", {}),
}


def ids_of(policy: Policy, text: str) -> tuple[int, ...]:
    return tuple(policy.tokenizer(text)["input_ids"])


def plain_logprobs(policy: Policy, request: Request, tokens: Sequence[int]) -> list[float]:
    """By one forward pass of transformers over the context and the tokens."""
    with torch.no_grad():
        logits = policy.model(input_ids=torch.tensor([[*request.token_ids, *tokens]])).logits[0]
    logprobs = logits[len(request.token_ids) - 1 : -1].double().log_softmax(dim=-1)
    return logprobs.gather(1, torch.tensor(tokens)[:, None]).squeeze(1).tolist()


def check_logprobs(policy: Policy, finished: Sequence[FinishedRequest]) -> None:
    for one in finished:
        assert one.logprobs == pytest.approx(plain_logprobs(policy, one.request, one.token_ids), abs=1e-5)


def check_uniforms(policy: Policy, one: FinishedRequest) -> None:
    """Each token is the one whose share of the distribution holds the number of its position in the trajectory."""
    end = one.request.offset + len(one.token_ids)
    numbers = uniforms(SEED, [one.request.draw_id], end)[0, one.request.offset :].tolist()
    sequence = torch.tensor([[*one.request.token_ids, *one.token_ids]])
    with torch.no_grad():
        logits = policy.model(input_ids=sequence).logits[0, len(one.request.token_ids) - 1 :].double()
    for t, token in enumerate(one.token_ids):
        low, high = oracle.interval(oracle.softmax(logits[t].tolist()), token)
        assert low - 1e-6 <= numbers[t] <= high + 1e-6


def first_turn(policy: Policy, *, keep: bool = True, limit: int = 9) -> list[Request]:
    return [
        Request(ids_of(policy, text), draw_id, Sampling(limit), SEED, keep=keep) for draw_id, text in enumerate(FIRST)
    ]


def next_turn(policy: Policy, finished: Sequence[FinishedRequest], texts: Sequence[str] = SECOND) -> list[Request]:
    """The whole context so far, then new text."""
    return [
        replace(
            one.request,
            token_ids=(*one.request.token_ids, *one.token_ids, *ids_of(policy, text)),
            offset=one.request.offset + len(one.token_ids),
        )
        for one, text in zip(finished, texts, strict=True)
    ]


def turns(engine: Engine, policy: Policy, count: int, *, keep: bool = True) -> list[list[FinishedRequest]]:
    requests, result = first_turn(policy, keep=keep), []
    for _ in range(count):
        [finished] = run_block(engine, [requests])
        result.append(finished)
        requests = next_turn(policy, finished)
    return result


@pytest.mark.parametrize("decode_first", [False, True])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_log_probabilities_of_every_turn_equal_a_plain_forward_pass(
    name: str, decode_first: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also in the order of a GPU, where a token is decoded before the host checks whether its row has finished."""
    run = Scheduler.run
    monkeypatch.setattr(
        Scheduler, "run", lambda self, n, **_: run(self, n, decode_first=decode_first, cuda_graph=False)
    )
    monkeypatch.setattr(torch_kv_cache, "CPU_BLOCK", 5)
    architecture, settings = ARCHITECTURES[name]
    policy = tiny_policy(architecture, **settings)
    engine = LocalEngine(policy)
    finished = [one for turn in turns(engine, policy, 3) for one in turn]
    check_logprobs(policy, finished)
    for one in finished:
        check_uniforms(policy, one)
    assert (engine.counters.reused_tokens > 0) == policy.plain


def test_only_the_new_tokens_of_a_conversation_are_computed() -> None:
    """A turn's last token was drawn but not computed, so it belongs to the next turn's new tokens."""
    policy = tiny_policy()
    engine = LocalEngine(policy)
    one, two = turns(engine, policy, 2)
    counters = engine.counters
    assert counters.prefill_tokens == sum(map(len, FIRST)) + sum(1 + len(text) for text in SECOND)
    assert counters.reused_tokens == sum(len(r.request.token_ids) + len(r.token_ids) - 1 for r in one)
    assert len({len(r.token_ids) for r in one}) > 1
    without = LocalEngine(policy)
    _, recomputed = turns(without, policy, 2, keep=False)
    assert without.counters.prefill_tokens == sum(map(len, FIRST)) + sum(len(r.request.token_ids) for r in recomputed)
    assert without.counters.reused_tokens == 0
    assert [r.token_ids for r in two] == [r.token_ids for r in recomputed]


def test_a_context_that_parts_from_what_was_kept_reuses_the_common_prefix() -> None:
    """As where a chat template drops earlier thinking: the first two tokens of each answer are left out."""
    policy = tiny_policy()
    policy.eos_ids = frozenset()
    engine = LocalEngine(policy)
    [one] = run_block(engine, [first_turn(policy)])
    requests = [
        replace(r, token_ids=(*r.token_ids[: len(text)], *r.token_ids[len(text) + 2 :]))
        for r, text in zip(next_turn(policy, one), FIRST, strict=True)
    ]
    # The tokens behind the gap may by chance go on like the answer did.
    same = [
        next(i for i, (a, b) in enumerate(zip(done.token_ids, r.token_ids[len(text) :], strict=False)) if a != b)
        for done, r, text in zip(one, requests, FIRST, strict=True)
    ]
    [two] = run_block(engine, [requests])
    check_logprobs(policy, two)
    assert engine.counters.reused_tokens == sum(len(text) + n for text, n in zip(FIRST, same, strict=True))


def test_a_context_that_was_kept_whole_computes_its_last_token_again() -> None:
    policy = tiny_policy()
    policy.eos_ids = frozenset()
    engine = LocalEngine(policy)
    [[one]] = run_block(engine, [first_turn(policy)[:1]])
    again = replace(one.request, token_ids=(*one.request.token_ids, *one.token_ids[:4]), offset=4)
    [[two]] = run_block(engine, [[again]])
    assert engine.counters.reused_tokens == len(FIRST[0]) + 3
    assert two.token_ids[:5] == one.token_ids[4:]
    assert two.logprobs[:5] == pytest.approx(one.logprobs[4:], abs=1e-5)


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_a_conversation_draws_the_same_alone_and_in_company(architecture: str) -> None:
    policy = tiny_policy(architecture, dtype=torch.float64)
    together = turns(LocalEngine(policy), policy, 3)
    assert len({one.token_ids for turn in together for one in turn}) > 12
    for number, text in enumerate(FIRST):
        engine = LocalEngine(policy)
        request = Request(ids_of(policy, text), number, Sampling(9), SEED, keep=True)
        for turn in together:
            [[one]] = run_block(engine, [[request]])
            assert one.token_ids == turn[number].token_ids
            assert one.logprobs == pytest.approx(turn[number].logprobs, abs=1e-6)
            [request] = next_turn(policy, [one], [SECOND[number]])


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_conversations_that_go_on_at_their_own_pace_draw_and_reuse_the_same(architecture: str) -> None:
    """Each sends its next request as soon as it has an answer, while the others still run, at most four at once."""
    policy = tiny_policy(architecture, dtype=torch.float64)
    in_blocks = LocalEngine(policy)
    expected = {
        (number, one.request.draw_id): one for number, turn in enumerate(turns(in_blocks, policy, 3)) for one in turn
    }
    engine = LocalEngine(policy, max_sequences=4)
    engine.add(first_turn(policy))
    done: dict[tuple[int, int], FinishedRequest] = {}
    passed = [0] * len(FIRST)
    while finished := engine.next_finished():
        for one in finished:
            number = one.request.draw_id
            done[passed[number], number] = one
            passed[number] += 1
            if passed[number] < 3:
                engine.add(next_turn(policy, [one], [SECOND[number]]))
            else:
                engine.release([number])
    assert done.keys() == expected.keys()
    for key, one in done.items():
        assert one.token_ids == expected[key].token_ids
        assert one.logprobs == pytest.approx(expected[key].logprobs, abs=1e-6)
    assert engine.counters.prefill_tokens == in_blocks.counters.prefill_tokens
    assert engine.counters.reused_tokens == in_blocks.counters.reused_tokens
    assert engine._kept.slots == 0


def test_a_stop_string_does_not_match_what_an_earlier_turn_drew() -> None:
    policy = scripted({"1": "2", "2": "3", "3": "4", "4": "1"})
    engine = LocalEngine(policy)
    sampling = Sampling(2, stop=("34", "zzz"))
    [[one]] = run_block(engine, [[Request(ids_of(policy, "1"), 0, sampling, SEED, keep=True)]])
    assert one.text == "23"
    context = (*one.request.token_ids, *one.token_ids)
    [[two]] = run_block(engine, [[replace(one.request, token_ids=context, offset=2)]])
    assert (two.text, two.finish.value) == ("41", "length")


def reused_in_the_next_turn(engine: Engine, policy: Policy, finished: Sequence[FinishedRequest]) -> list[bool]:
    reused = []
    for request in next_turn(policy, finished):
        before = engine.counters.reused_tokens
        run_block(engine, [[request]])
        reused.append(engine.counters.reused_tokens > before)
    return reused


def test_a_released_or_cancelled_conversation_is_computed_again() -> None:
    policy = tiny_policy()
    engine = LocalEngine(policy)
    [finished] = run_block(engine, [first_turn(policy)])
    engine.release([1, 4, 99])
    engine.cancel([2])
    assert reused_in_the_next_turn(engine, policy, finished) == [True, False, False, True, False, True]


def test_new_weights_never_meet_keys_of_older_ones() -> None:
    policy, other = tiny_policy("qwen2"), tiny_policy("qwen2", seed=1)
    engine = LocalEngine(policy)
    [one] = run_block(engine, [first_turn(policy)])
    policy.model.load_state_dict(other.model.state_dict())
    policy.version = 1
    engine.load(Snapshot(1, policy))
    [two] = run_block(engine, [next_turn(policy, one)])
    assert engine.counters.reused_tokens == 0
    assert [r.version for r in (*one, *two)] == [0] * len(one) + [1] * len(two)
    check_logprobs(other, two)


def test_long_conversations_are_extended_in_several_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = tiny_policy()
    expected = turns(LocalEngine(policy), policy, 3)
    monkeypatch.setattr("sharpen.rollout.local.model_runner.PREFILL_TOKENS", 8)
    found = turns(LocalEngine(policy), policy, 3)
    tokens = partial(map, lambda turn: [one.token_ids for one in turn])
    assert list(tokens(found)) == list(tokens(expected))
    check_logprobs(policy, [one for turn in found for one in turn])
