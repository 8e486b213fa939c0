"""The order used on a GPU, which decodes a token before the host checks which rows have finished, run on the CPU."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from sharpen.rollout.engine import Sampling
from sharpen.rollout.generation import generate
from sharpen.rollout.local import torch_kv_cache
from sharpen.rollout.local.cuda_graph import CudaGraphRunner
from sharpen.rollout.local.engine import LocalEngine
from sharpen.rollout.local.scheduler import Scheduler
from tiny_models import make_prompt, tiny_policy


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
@pytest.mark.parametrize("stop", [(), ("1", "7=")])
def test_decoding_before_checking_gives_the_same_completions(
    architecture: str, stop: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = tiny_policy(architecture, dtype=torch.float64)
    prompts = [make_prompt(policy, text) for text in ("1+2=", "7", "12345+6789=", "9-9", "00")]
    ids = [range(20 * i, 20 * i + 5) for i in range(len(prompts))]
    sampling = Sampling(24, stop=stop)
    expected = generate(LocalEngine(policy, max_sequences=8), prompts, ids, sampling, seed=3)
    run = Scheduler.run
    monkeypatch.setattr(Scheduler, "run", lambda self, n, **_: run(self, n, decode_first=True, cuda_graph=False))
    monkeypatch.setattr(torch_kv_cache, "CPU_BLOCK", 5)
    sampled = generate(LocalEngine(policy, max_sequences=8), prompts, ids, sampling, seed=3)
    assert [[c.token_ids for c in group] for group in sampled] == [[c.token_ids for c in group] for group in expected]
    assert [[c.finish for c in group] for group in sampled] == [[c.finish for c in group] for group in expected]
    assert len({len(c.token_ids) for group in sampled for c in group}) > 5
    for group, other in zip(sampled, expected, strict=True):
        for one, two in zip(group, other, strict=True):
            assert one.sample_logprobs == pytest.approx(two.sample_logprobs, abs=1e-6)


def test_a_graph_is_replayed_while_its_key_is_unchanged(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a fake graph that records its calls: the first run under a key is ordinary, the second captures."""
    events: list[str] = []

    class Graph:
        def replay(self) -> None:
            events.append("replayed")

    @contextmanager
    def capturing(graph: Graph, pool: object) -> Iterator[None]:
        events.append("[")
        yield
        events.append("]")

    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", capturing)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: None)
    step = CudaGraphRunner(partial(events.append, "run"), capture=True)
    for key in (1, 1, 1, 2, 3, 3):
        step(key)
    assert events == ["run", "[", "run", "]", "replayed", "replayed", "run", "run", "[", "run", "]", "replayed"]
    events.clear()
    step = CudaGraphRunner(partial(events.append, "run"), capture=False)
    step(1)
    step(1)
    assert events == ["run", "run"]


WAITING_CALLS = {
    "item",
    "tolist",
    "numpy",
    "cpu",
    "tensor",
    "__array__",
    "__bool__",
    "__int__",
    "__float__",
    "__index__",
}
WAITING_OPERATIONS = {"_local_scalar_dense", "nonzero", "masked_select", "_unique2", "equal", "repeat_interleave"}


class Calls(TorchFunctionMode):
    """Records calls from Python that, on a GPU, make the host wait for the device."""

    def __init__(self, waits: list[str]) -> None:
        super().__init__()
        self._waits = waits

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if (name := getattr(function, "__name__", "")) in WAITING_CALLS:
            self._waits.append(name)
        return function(*args, **(kwargs or {}))


class Operations(TorchDispatchMode):
    """Records the operations that do so inside PyTorch, such as indexing by a mask."""

    def __init__(self, waits: list[str]) -> None:
        super().__init__()
        self._waits = waits

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = function.overloadpacket.__name__
        by_mask = name in ("index", "index_put", "index_put_", "_index_put_impl_") and any(
            x is not None and x.dtype == torch.bool for x in args[1]
        )
        if name in WAITING_OPERATIONS or by_mask:
            self._waits.append(name)
        return function(*args, **(kwargs or {}))


def waits_of(length: int, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every wait of the host while six completions of ``length`` tokens are sampled."""
    policy = tiny_policy("llama")
    policy.eos_ids = frozenset()
    run = Scheduler.run
    monkeypatch.setattr(Scheduler, "run", lambda self, n, **_: run(self, n, decode_first=True, cuda_graph=False))
    waits: list[str] = []
    with Calls(waits), Operations(waits):
        generate(
            LocalEngine(policy),
            [make_prompt(policy, text) for text in ("1+2=", "7")],
            [range(3), range(3, 6)],
            Sampling(length),
            seed=3,
        )
    return waits


def test_the_host_waits_for_the_device_once_a_token(monkeypatch: pytest.MonkeyPatch) -> None:
    """To check whether any row has finished. Waits for adding and removing rows do not depend on the length."""
    short, long = waits_of(20, monkeypatch), waits_of(60, monkeypatch)
    assert short.count("__int__") == 20
    first = short.index("__int__")
    assert short[first : first + 20] == ["__int__"] * 20
    assert long == short[:first] + ["__int__"] * 40 + short[first:]
