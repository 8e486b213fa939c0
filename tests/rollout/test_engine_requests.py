"""The local engine's protocol: requests come at any time, end one by one and may be cancelled; versions; closing."""

from dataclasses import replace

import pytest
import torch
from test_conversations import check_logprobs, check_uniforms, ids_of

from sharpen.models.policy import Policy
from sharpen.rollout.engine import Request, Sampling, Snapshot
from sharpen.rollout.engines import make_engine
from sharpen.rollout.generation import generate, run_block
from sharpen.rollout.local.engine import LocalEngine
from sharpen.rollout.settings import EngineSettings
from tiny_models import make_prompt, tiny_policy

SEED = 17


def endless(architecture: str = "llama") -> Policy:
    policy = tiny_policy(architecture, dtype=torch.float64)
    policy.eos_ids = frozenset()
    return policy


def request(policy: Policy, text: str, draw_id: int, limit: int) -> Request:
    return Request(ids_of(policy, text), draw_id, Sampling(limit), SEED)


def drain(engine: LocalEngine) -> list[int]:
    """The draw ids in the order in which they end."""
    ended = []
    while finished := engine.next_finished():
        ended += [one.request.draw_id for one in finished]
    return ended


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_results_come_as_they_end(architecture: str) -> None:
    """Of 8 rows the first leaves alone: fewer than a quarter have finished, so it stays in the batch until token 6."""
    policy = endless(architecture)
    engine = LocalEngine(policy)
    engine.add([request(policy, "1+2=", i, limit) for i, limit in enumerate((9, 3, 8, 6, 9, 6, 8, 12))])
    ended = []
    while finished := engine.next_finished():
        ended.append([one.request.draw_id for one in finished])
        check_logprobs(policy, finished)
    assert ended == [[1], [3, 5], [2, 6], [0, 4], [7]]
    assert engine.next_finished() == []


def test_at_least_so_many() -> None:
    policy = endless()
    engine = LocalEngine(policy)
    engine.add([request(policy, "7", i, limit) for i, limit in enumerate((2, 4, 6, 8, 8))])
    assert [one.request.draw_id for one in engine.next_finished(2)] == [0, 1]
    assert [one.request.draw_id for one in engine.next_finished(9)] == [2, 3, 4]


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_requests_that_join_later_draw_what_they_draw_alone(architecture: str) -> None:
    policy = endless(architecture)
    early = [request(policy, "1+2=", i, limit) for i, limit in enumerate((5, 20, 20))]
    # Longer than any that runs.
    late = [request(policy, "12345+6789=", 10 + i, 30) for i in range(3)]
    engine = LocalEngine(policy, max_sequences=6)
    engine.add(early)
    finished = engine.next_finished()
    assert [one.request.draw_id for one in finished] == [0]
    engine.add(late)
    while more := engine.next_finished():
        finished += more
    alone = {one.draw_id: run_block(LocalEngine(policy), [[one]])[0][0] for one in (*early, *late)}
    assert len(finished) == 6
    for one in finished:
        assert one.token_ids == alone[one.request.draw_id].token_ids
        assert one.logprobs == pytest.approx(alone[one.request.draw_id].logprobs, abs=1e-6)
        check_uniforms(policy, one)


def test_requests_that_come_while_others_run_join_without_waiting_for_them() -> None:
    policy = endless()
    engine = LocalEngine(policy)
    engine.add([request(policy, "1+2=", 0, 3), request(policy, "1+2=", 1, 60)])
    assert [one.request.draw_id for one in engine.next_finished()] == [0]
    engine.add([request(policy, "7", 2, 4)])
    assert drain(engine) == [2, 1]
    # Every row's last token is drawn but not decoded.
    assert engine.counters.decoded_tokens == 59 + 2 + 3


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_cancelled_requests_never_come_back_and_leave_the_others_alone(architecture: str) -> None:
    policy = endless(architecture)
    texts = ("1+2=", "7", "9-9", "00", "3+3=", "8", "12345")
    requests = [request(policy, text, i, 4 + 3 * i) for i, text in enumerate(texts)]
    engine = LocalEngine(policy, max_sequences=5)
    engine.add(requests)
    finished = engine.next_finished()
    assert [one.request.draw_id for one in finished] == [0]
    # 1 and 3 run, 6 has the longest context and waits, 0 has finished, 99 was never there.
    engine.cancel([1, 3, 6, 0, 99])
    while more := engine.next_finished():
        finished += more
    assert {one.request.draw_id for one in finished} == {0, 2, 4, 5}
    for one in finished:
        alone = run_block(LocalEngine(policy), [[one.request]])[0][0]
        assert one.token_ids == alone.token_ids
        assert one.logprobs == pytest.approx(alone.logprobs, abs=1e-6)
    # A cancelled id may be used again.
    [[again]] = run_block(engine, [[requests[3]]])
    assert again.token_ids == run_block(LocalEngine(policy), [[requests[3]]])[0][0].token_ids


def test_all_may_be_cancelled() -> None:
    policy = endless()
    engine = LocalEngine(policy, max_sequences=1)
    engine.add([request(policy, "7", 0, 3), request(policy, "7", 1, 30), request(policy, "7", 2, 30)])
    assert [one.request.draw_id for one in engine.next_finished()] == [0]
    engine.cancel([1, 2])
    assert engine.next_finished() == []


def test_a_block_that_fails_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = endless()
    engine = LocalEngine(policy)
    with pytest.raises(ValueError, match="draw id 1: another one"):
        run_block(engine, [[request(policy, "7", 1, 3)], [request(policy, "8", 1, 3)]])
    assert engine.next_finished() == []
    engine.add([request(policy, "7", 5, 3)])
    with pytest.raises(RuntimeError, match=r"also finished draw ids \[5\]"):
        run_block(engine, [[request(policy, "8", 6, 9)]])


def test_malformed_requests_are_refused() -> None:
    policy = endless()
    engine = LocalEngine(policy)
    good = request(policy, "7", 0, 3)
    for bad in (
        replace(good, token_ids=()),
        replace(good, offset=-1),
    ):
        with pytest.raises(ValueError, match="draw id 0"):
            engine.add([bad])
    with pytest.raises(ValueError, match="draw id 0: another one"):
        engine.add([good, good])
    engine.add([good])
    for other in (
        replace(good, draw_id=1, sampling=Sampling(3, 0.5)),
        replace(good, draw_id=1, sampling=Sampling(3, stop=("4",))),
        replace(good, draw_id=1, seed=3),
    ):
        with pytest.raises(ValueError, match="draw id 1: its truncation, stop strings or seed differ"):
            engine.add([other])
    assert drain(engine) == [0]


def test_a_snapshot_out_of_order_is_refused() -> None:
    policy = endless()
    policy.version = 3
    engine = LocalEngine(policy)
    assert engine.version == 3
    for version in (2, 3):
        with pytest.raises(ValueError, match=f"version {version} for an engine that has version 3"):
            engine.load(Snapshot(version, policy))
    engine.add([request(policy, "7", 0, 3)])
    with pytest.raises(ValueError, match="1 requests of version 3 are unfinished"):
        engine.load(Snapshot(5, policy))
    assert [one.version for one in engine.next_finished()] == [3]
    with pytest.raises(ValueError, match="the policy that it was made with"):
        engine.load(Snapshot(5, endless()))
    engine.load(Snapshot(5, policy))
    [(completion,)] = generate(engine, [make_prompt(policy, "7")], [[1]], Sampling(2), SEED)
    assert completion.last.versions == (5, 5)


def test_weights_that_moved_on_without_a_snapshot_are_an_error() -> None:
    policy = endless()
    engine = LocalEngine(policy)
    engine.add([request(policy, "7", 0, 3)])
    policy.version = 2
    with pytest.raises(RuntimeError, match="from version 0 to 2"):
        engine.next_finished()
    with pytest.raises(RuntimeError, match="from version 0 to 2"):
        engine.add([request(policy, "7", 1, 3)])
    engine.cancel([0])
    engine.load(Snapshot(1, policy))
    assert [one.version for one in run_block(engine, [[request(policy, "7", 1, 3)]])[0]] == [1]


def test_a_closed_engine_says_so() -> None:
    policy = endless()
    engine = LocalEngine(policy)
    engine.add([replace(request(policy, "7", 0, 3), keep=True)])
    engine.close()
    for use in (
        lambda: engine.add([request(policy, "7", 1, 3)]),
        engine.next_finished,
        lambda: engine.cancel([0]),
        lambda: engine.release([0]),
        lambda: engine.load(Snapshot(9, policy)),
    ):
        with pytest.raises(RuntimeError, match="this engine is closed"):
            use()
    engine.close()


def test_the_settings_make_the_engine() -> None:
    policy = endless()
    engine = make_engine(EngineSettings(max_sequences=2, kv_gib=0.5), policy)
    assert isinstance(engine, LocalEngine)
    # Two at a time, of 4 and 8 tokens, then the third: 3 + 3 rows, 4 more of the second beside the third's 2, 1 alone.
    run_block(engine, [[request(policy, "7", i, limit) for i, limit in enumerate((4, 8, 3))]])
    assert engine.counters.decoded_tokens == 3 + 7 + 2
    assert engine._kv_bytes == 2**29
