"""The budget of memory for keys and values: never exceeded, and without effect on what is drawn."""

import random
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from test_conversations import check_logprobs, check_uniforms, ids_of, next_turn
from test_local_engine import scripted

from sharpen.errors import RecipeError
from sharpen.models.policy import Policy
from sharpen.rollout.engine import FinishedRequest, Request, Sampling
from sharpen.rollout.generation import Interaction, generate, run_block
from sharpen.rollout.local import memory
from sharpen.rollout.local.continuation import Continuation
from sharpen.rollout.local.engine import LocalEngine
from sharpen.rollout.local.kept import KeptConversations
from sharpen.rollout.local.kv_cache import KVCache
from sharpen.rollout.local.scheduler import Scheduler
from sharpen.rollout.local.transformers_runner import TransformersRunner
from sharpen.rollout.turns import Reply
from sharpen.types import End, Prompt, Trajectory
from tiny_models import tiny_policy

SEED = 17
BYTES = 2 * 2 * 2 * 4 * 4
"""Of a token: keys and values, 2 layers, 2 heads of 4 numbers in float32."""
TEXTS = ("1+2=", "7", "12345+6789=", "9-9", "0000000", "3+3=" * 8)
GROUP = 5


def limited(policy: Policy, slots: int, **settings: int) -> LocalEngine:
    bytes_per_token = LocalEngine(policy)._bytes_per_token
    return LocalEngine(policy, kv_gib=slots * bytes_per_token / 2**30, **settings)


def blocks(policy: Policy, limit: int = 60) -> list[list[Request]]:
    return [
        [Request(ids_of(policy, text), 10 * i + n, Sampling(limit), SEED) for n in range(GROUP)]
        for i, text in enumerate(TEXTS)
    ]


def bytes_of(tensors: Sequence[torch.Tensor]) -> int:
    return sum(x.numel() * x.element_size() for x in tensors)


def tensors_of(values: Any) -> Iterator[torch.Tensor]:
    """The tensors of floats in nested lists and tuples."""
    for value in values:
        if isinstance(value, list | tuple):
            yield from tensors_of(value)
        elif isinstance(value, torch.Tensor) and value.is_floating_point():
            yield value


class Held:
    """The most bytes of keys and values at any time, from the tensors that hold them, since ``restart``."""

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        self.most = 0
        self._holders = weakref.WeakSet[Any]()

    def note(self, holder: Any) -> None:
        self._holders.add(holder)
        self.most = max(self.most, sum(map(self._bytes, self._holders)))

    def _bytes(self, holder: Any) -> int:
        if isinstance(holder, KVCache):
            return bytes_of([*holder._keys, *holder._values, *holder._prompt_keys, *holder._prompt_values])
        if isinstance(holder, KeptConversations):
            return bytes_of([x for one in holder._kept.values() for x in (one.keys, one.values)])
        if isinstance(holder, Continuation):
            return bytes_of(list(tensors_of([x for name, x in vars(holder).items() if name != "_cache"])))
        return bytes_of([x for layer in holder._cache.layers for x in (layer._key_buffer, layer._value_buffer)])


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Held:
    """Looks after every step that allocates something."""
    result = Held()

    def watch(kind: type, name: str) -> None:
        method = getattr(kind, name)

        def watched(self: object, *args: object) -> object:
            returned = method(self, *args)
            result.note(self)
            return returned

        monkeypatch.setattr(kind, name, watched)

    for kind, names in (
        (KVCache, ("add_layer", "add_rows", "reserve", "select_rows")),
        (KeptConversations, ("add", "drop")),
        (Continuation, ("__init__", "attend")),
        (TransformersRunner, ("prefill", "decode", "select_rows")),
    ):
        for name in names:
            watch(kind, name)
    return result


@pytest.mark.parametrize("decode_first", [False, True])
@pytest.mark.parametrize(("architecture", "slots"), [("llama", 200), ("llama", 600), ("qwen2", 400), ("gpt2", 400)])
def test_a_small_budget_holds_and_draws_the_same(
    architecture: str, slots: int, decode_first: bool, held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Scheduler.run
    monkeypatch.setattr(
        Scheduler, "run", lambda self, n, **_: run(self, n, decode_first=decode_first, cuda_graph=False)
    )
    for headroom in ("kv_cache.MIN_HEADROOM", "torch_kv_cache.MIN_HEADROOM", "transformers_cache._MIN_HEADROOM"):
        monkeypatch.setattr(f"sharpen.rollout.local.{headroom}", 4)
    policy = tiny_policy(architecture)
    ample = LocalEngine(policy)
    expected = [one for group in run_block(ample, blocks(policy)) for one in group]
    assert ample.counters.preemptions == 0
    peak = held.most
    held.restart()
    engine = limited(policy, slots)
    assert engine._slots == slots < peak // engine._bytes_per_token
    found = [one for group in run_block(engine, blocks(policy)) for one in group]
    assert [one.token_ids for one in found] == [one.token_ids for one in expected]
    assert [(one.finish, one.text) for one in found] == [(one.finish, one.text) for one in expected]
    for one, other in zip(found, expected, strict=True):
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-5)
        check_uniforms(policy, one)
    check_logprobs(policy, found)
    assert held.most <= slots * engine._bytes_per_token
    preemptions = sum(one.preemptions for one in found)
    assert engine.counters.preemptions == preemptions > 0
    # What is preempted follows from the requests alone.
    again = limited(policy, slots)
    repeated = [one for group in run_block(again, blocks(policy)) for one in group]
    assert [(one.preemptions, one.logprobs) for one in repeated] == [(one.preemptions, one.logprobs) for one in found]


def test_the_size_of_a_token_is_that_of_its_keys_and_values() -> None:
    assert LocalEngine(tiny_policy("llama"))._bytes_per_token == BYTES
    assert LocalEngine(tiny_policy("llama", dtype=torch.float64))._bytes_per_token == 2 * BYTES
    # gpt2 has as many key heads as heads: 4 of 4 numbers.
    assert LocalEngine(tiny_policy("gpt2"))._bytes_per_token == 2 * BYTES


def test_the_youngest_row_is_preempted_and_goes_on_with_what_it_has_drawn() -> None:
    """Three rows of 100 tokens each behind a context of one token, all in blocks of 16.

    The context takes 16 slots, once for its three rows. They begin with room for 16 + 64 = 80 tokens each, with the
    context 256 in all. To decode the 81st token, each takes the 112 of its limit, 352 in all: with 290 the third row
    has to go, and the others grow to 16 + 2 · 112 = 240. At their end the third computes its 82 tokens and goes on.
    """
    policy = tiny_policy()
    policy.eos_ids = frozenset()
    engine = limited(policy, 290)
    requests = [Request(ids_of(policy, "7"), draw_id, Sampling(100), SEED) for draw_id in range(3)]
    [found] = run_block(engine, [requests])
    assert [one.preemptions for one in found] == [0, 0, 1]
    assert engine.counters.prefill_tokens == 1 + 82
    # A row's last token is not decoded, nor is the token with which the third row stopped.
    assert engine.counters.decoded_tokens == 2 * 99 + 80 + 18
    [expected] = run_block(LocalEngine(policy), [requests])
    assert [one.token_ids for one in found] == [one.token_ids for one in expected]


def test_a_stop_string_is_found_across_a_preemption() -> None:
    policy = scripted({"1": "2", "2": "3", "3": "4", "4": "1"})
    bound = Sampling(100, stop=("3412" * 22 + "34",))
    requests = [Request(ids_of(policy, "2"), draw_id, bound, SEED) for draw_id in range(3)]
    engine = limited(policy, 290)
    [found] = run_block(engine, [requests])
    assert engine.counters.preemptions == 1
    assert {(one.text, one.finish.value) for one in found} == {("3412" * 22 + "34", "stop_string")}


@pytest.mark.parametrize(("architecture", "block"), [("llama", 16), ("gpt2", 1)])
def test_a_request_that_cannot_fit_is_refused_before_anything_is_drawn(architecture: str, block: int) -> None:
    """A context of 11 tokens and 60 new ones: 71, rounded up to blocks on both sides of any cut."""
    policy = tiny_policy(architecture)
    needed = {16: 96, 1: 71}[block]
    requests = [Request(ids_of(policy, text), i, Sampling(60), SEED) for i, text in enumerate(("7", "12345+6789="))]
    small = limited(policy, needed - 1)
    with pytest.raises(RecipeError, match=r"context of 11 tokens and 60 new ones need .* GiB.*rollout.engine.kv_gib"):
        run_block(small, [requests])
    assert small.next_finished() == []
    assert small.counters.prefill_tokens == 0
    [found] = run_block(limited(policy, needed), [requests])
    assert [len(one.token_ids) for one in found] == [
        len(one.token_ids) for one in run_block(LocalEngine(policy), [requests])[0]
    ]


@pytest.mark.parametrize(("architecture", "slots", "longest"), [("llama", 96, 81), ("llama", 95, 65), ("gpt2", 71, 71)])
def test_the_context_is_limited_to_what_the_budget_can_hold_alone(architecture: str, slots: int, longest: int) -> None:
    """In blocks of 16, wherever a row is interrupted: 81 tokens take up to 6 blocks, as 1 + 80 do, and 82 up to 7."""
    policy = tiny_policy(architecture)
    policy.eos_ids = frozenset()
    engine = limited(policy, slots)
    assert engine.context_length == longest
    [[one]] = run_block(engine, [[Request((3,), 0, Sampling(longest - 1), SEED)]])
    assert len(one.token_ids) == longest - 1
    with pytest.raises(RecipeError, match=r"rollout.engine.kv_gib"):
        engine.add([Request((3,), 1, Sampling(longest), SEED)])
    assert LocalEngine(policy).context_length == policy.context_length == 128


def test_a_budget_that_cannot_hold_a_token() -> None:
    assert limited(tiny_policy(), 15).context_length == 0


def test_a_conversation_that_outgrows_the_budget_ends_and_the_others_go_on() -> None:
    """96 slots hold 81 tokens. After 20 + 1 tokens of prompt and answer a reply of 59 leaves room for one, which is
    drawn; of 60 it leaves none. The model's context is 128."""
    policy = scripted({"1": "3", "3": "1"})
    engine = limited(policy, 96)

    def reply(prompt: Prompt, trajectory: Trajectory) -> Reply:
        so_far = (*trajectory.last.prefix_ids, *trajectory.last.token_ids)
        return Reply((*so_far, *ids_of(policy, "1" * prompt.row["reply"])))

    prompts = [Prompt(str(n), ids_of(policy, "1" * 20), "", {"reply": n}) for n in (1, 59, 60)]
    interaction = Interaction(reply, 3, engine.context_length)
    block = generate(engine, prompts, [[0], [1], [2]], Sampling(30, stop=("3",)), SEED, interaction)
    ends = [(one.end, one.drawn) for [one] in block]
    assert ends == [(End.OUT_OF_TURNS, 3), (End.OUT_OF_TOKENS, 2), (End.OUT_OF_TOKENS, 1)]


def conversation_turns(engine: LocalEngine, policy: Policy) -> list[FinishedRequest]:
    rng = random.Random(1)
    requests = [Request(ids_of(policy, text), i, Sampling(20), SEED, keep=True) for i, text in enumerate(TEXTS)]
    result = []
    for _ in range(3):
        [finished] = run_block(engine, [requests])
        result += finished
        requests = next_turn(policy, finished, ["".join(rng.choices("0123", k=4)) for _ in TEXTS])
    return result


def test_extending_conversations_holds_no_more_than_what_is_kept_and_the_cache(held: Held) -> None:
    """Six conversations of 30 + 1 tokens are kept, 186 slots. Their next contexts have 34 tokens: in blocks of 16 they
    take 6 · 48 slots, and their rows then 6 · 16. With room for all, 570, nothing is evicted; the rows get theirs after
    what was kept has gone, so no more than 186 + 288 are held."""
    policy = tiny_policy()
    policy.eos_ids = frozenset()
    engine = limited(policy, 570)
    [finished] = run_block(engine, [[Request((3 + i,) * 30, i, Sampling(2), SEED, keep=True) for i in range(6)]])
    assert engine._kept.slots == 186
    held.restart()
    held.note(engine._kept)
    run_block(engine, [[replace(r, keep=False) for r in next_turn(policy, finished, ["12"] * 6)]])
    assert engine.counters.reused_tokens == 186
    assert engine.counters.evictions == 0
    assert held.most == (186 + 288) * BYTES


@pytest.mark.parametrize("slots", [200, 330])
def test_kept_conversations_count_and_are_evicted(slots: int, held: Held) -> None:
    policy = tiny_policy()
    ample = LocalEngine(policy)
    expected = conversation_turns(ample, policy)
    assert ample.counters.evictions == 0
    held.restart()
    engine = limited(policy, slots)
    found = conversation_turns(engine, policy)
    assert [one.token_ids for one in found] == [one.token_ids for one in expected]
    check_logprobs(policy, found)
    assert held.most <= slots * BYTES
    assert engine.counters.reused_tokens < ample.counters.reused_tokens


def test_kept_conversations_go_before_running_rows() -> None:
    """A conversation of 3 + 16 tokens is kept; a row that grows to 16 + 112 slots does not fit beside it in 140."""
    policy = tiny_policy()
    policy.eos_ids = frozenset()
    engine = limited(policy, 140)
    run_block(engine, [[Request(ids_of(policy, "9-9"), 0, Sampling(17), SEED, keep=True)]])
    assert engine._kept.slots == 19
    [[one]] = run_block(engine, [[Request(ids_of(policy, "7"), 1, Sampling(100), SEED)]])
    assert (engine.counters.evictions, one.preemptions, engine._kept.slots) == (1, 0, 0)


def test_kept_conversations_make_room_for_requests_that_wait() -> None:
    """Three conversations of 3 + 16 tokens are kept, 57 slots. Contexts of 21 tokens and of 1 then take 2 · 32 slots,
    their three rows 3 · 32: 160 in all, which leaves 20 of 180.

    Two conversations have to go, but not the one that waits for its own next turn, although it was kept first. It
    reuses its 19 tokens; the other two rows share a context.
    """
    policy = tiny_policy()
    policy.eos_ids = frozenset()
    engine = limited(policy, 180)
    first = [Request(ids_of(policy, "9-9"), i, Sampling(17), SEED, keep=True) for i in range(3)]
    [finished] = run_block(engine, [first])
    assert engine._kept.slots == 57
    [again, *_] = next_turn(policy, finished, ["1"] * 3)
    others = [Request(ids_of(policy, "7"), i, Sampling(17), SEED) for i in (7, 8)]
    engine.counters.prefill_tokens = engine.counters.decoded_tokens = 0
    run_block(engine, [[again], others])
    assert engine.counters.evictions == 2
    assert engine.counters.reused_tokens == 19
    assert engine.counters.prefill_tokens == 2 + 1
    assert engine.counters.preemptions == 0


def test_without_a_setting_the_budget_follows_from_the_kind_of_device(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = tiny_policy()
    assert memory.kv_bytes(policy, None) == 8 * 2**30
    assert memory.kv_bytes(policy, 0.25) == 2**28

    class Properties:
        total_memory = 10**6

    class OnGpu:
        device = torch.device("cuda")
        model = policy.model

    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: Properties)
    weights = sum(p.numel() for p in policy.model.parameters())
    # 4 bytes of weight, 4 of gradient, 8 of moments; half of the rest.
    assert memory.kv_bytes(OnGpu, None) == (10**6 - 16 * weights) // 2  # type: ignore[arg-type]
    for parameter in policy.model.parameters():
        parameter.requires_grad_(False)
    assert memory.kv_bytes(OnGpu, None) == (10**6 - 4 * weights) // 2  # type: ignore[arg-type]
