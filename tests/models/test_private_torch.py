"""Every private entry point of PyTorch and transformers exists, takes our arguments and agrees with public functions.

A failure here names the entry point that a new version changed.
"""

import platform
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, AutoModelForCausalLM
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask
from transformers.utils import logging

from mixtures import MIXTURES
from sharpen.models.kernels import private_torch
from sharpen.models.progress_bars import without_progress_bars
from tiny_models import tiny_folder, tiny_model, tiny_policy

SOURCE = Path(__file__).parents[2] / "src" / "sharpen"
CPUINFO = Path("/proc/cpuinfo")

x86_flags = pytest.mark.skipif(
    not CPUINFO.is_file() or platform.machine() != "x86_64", reason="reads the flags of an x86 processor"
)
has_onednn = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this PyTorch has no oneDNN")
has_ampere = pytest.mark.skipif(
    not torch.cuda.is_available() or torch.cuda.get_device_capability() < (8, 0), reason="needs an Ampere GPU"
)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def cpu_flags() -> set[str]:
    return set(next(line for line in CPUINFO.read_text().splitlines() if line.startswith("flags")).split())


def arguments_of(operation: Any) -> list[str]:
    return [argument.name for argument in operation.default._schema.arguments]


@has_onednn
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("rows", [1, 7, 300])
def test_linear_pointwise_is_a_linear_layer(rows: int, bias: bool) -> None:
    assert private_torch.linear_pointwise is torch.ops.mkldnn._linear_pointwise
    x, weight, bias_M = random(rows, 24), random(5, 24, seed=1), random(5, seed=2) if bias else None
    found = private_torch.linear_pointwise(x, weight, bias_M, "none", [], "")
    torch.testing.assert_close(found, nn.functional.linear(x, weight, bias_M), rtol=1e-5, atol=1e-5)
    fallback = private_torch.slow_linear_pointwise(x, weight, bias_M, "none", [], "")
    assert torch.equal(fallback, nn.functional.linear(x, weight, bias_M))


@has_onednn
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_reorder_linear_weight_changes_the_layout_and_no_number(dtype: torch.dtype) -> None:
    assert private_torch.reorder_linear_weight is torch.ops.mkldnn._reorder_linear_weight
    if dtype == torch.bfloat16 and not private_torch.onednn_has_bfloat16():
        pytest.skip("oneDNN has no bfloat16 here")
    x, weight = random(3, 64).to(dtype), random(96, 64, seed=1).to(dtype)
    blocked = private_torch.reorder_linear_weight(weight, 64)
    found = private_torch.linear_pointwise(x, blocked, None, "none", [], "")
    expected = nn.functional.linear(x.double(), weight.double())
    torch.testing.assert_close(found.double(), expected, rtol=2**-7 if dtype == torch.bfloat16 else 1e-5, atol=1e-4)
    assert private_torch.slow_reorder_linear_weight(weight, 64) is weight


def test_softmax_backward_data_is_the_gradient_of_softmax() -> None:
    assert private_torch.softmax_backward_data is torch._softmax_backward_data
    x, grad = random(3, 5, 7).requires_grad_(), random(3, 5, 7, seed=1)
    softmax = x.softmax(dim=-1)
    (expected,) = torch.autograd.grad(softmax, x, grad)
    for function in (private_torch.softmax_backward_data, private_torch.slow_softmax_backward_data):
        found = function(grad, softmax.detach(), -1, torch.float32)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_silu_backward_is_the_gradient_of_silu() -> None:
    assert private_torch.silu_backward is torch.ops.aten.silu_backward
    x, grad = random(4, 9).requires_grad_(), random(4, 9, seed=1)
    (expected,) = torch.autograd.grad(nn.functional.silu(x), x, grad)
    for function in (private_torch.silu_backward, private_torch.slow_silu_backward):
        torch.testing.assert_close(function(grad, x.detach()), expected, rtol=1e-5, atol=1e-6)


def test_flash_attention_takes_our_arguments() -> None:
    forward, backward = private_torch.flash_attention_forward, private_torch.flash_attention_backward
    assert forward is torch.ops.aten._flash_attention_forward
    assert backward is torch.ops.aten._flash_attention_backward
    lengths = ["cum_seq_q", "cum_seq_k", "max_q", "max_k", "dropout_p", "is_causal"]
    assert arguments_of(forward)[:11] == ["query", "key", "value", *lengths, "return_debug_mask", "scale"]
    assert [r.name for r in forward.default._schema.returns][:2] == ["output", "softmax_logsumexp"]
    inputs = ["grad_out", "query", "key", "value", "out", "logsumexp"]
    assert arguments_of(backward)[:15] == [*inputs, *lengths, "rng_state", "unused", "scale"]


@has_ampere
def test_flash_attention_gives_softmax_attention_and_its_gradients() -> None:
    """Two sequences of 5 and 3 tokens in one row, each causal, against public attention sequence by sequence."""
    q, k, v, grad = (random(8, 2, 16, seed=seed).bfloat16().cuda() for seed in range(4))
    edges = torch.tensor([0, 5, 8], dtype=torch.int32).cuda()
    settings: tuple[Any, ...] = (edges, edges, 5, 5, 0.0, True)
    found, lse, *_ = private_torch.flash_attention_forward(q, k, v, *settings, False, scale=0.5)
    state = torch.zeros(2, dtype=torch.uint64).cuda(), torch.empty(0).cuda()
    grads = private_torch.flash_attention_backward(grad, q, k, v, found, lse, *settings, *state, scale=0.5)
    exact = [x.float().requires_grad_() for x in (q, k, v)]
    parts = [[x[start:end].transpose(0, 1) for x in exact] for start, end in ((0, 5), (5, 8))]
    expected = torch.cat(
        [nn.functional.scaled_dot_product_attention(*part, is_causal=True, scale=0.5).transpose(0, 1) for part in parts]
    )
    torch.testing.assert_close(found.float(), expected, rtol=2**-6, atol=2**-6)
    for mine, theirs in zip(grads, torch.autograd.grad(expected, exact, grad.float()), strict=True):
        torch.testing.assert_close(mine.float(), theirs, rtol=2**-5, atol=2**-5)


@x86_flags
@pytest.mark.parametrize(
    ("name", "found", "flags"),
    [
        ("_is_avx512_bf16_supported", private_torch.cpu_has_avx512_bf16, {"avx512_bf16"}),
        ("_is_amx_tile_supported", private_torch.cpu_has_amx_tile, {"amx_tile"}),
    ],
)
def test_torch_cpu_says_what_the_processor_lists(
    name: str, found: Callable[[], bool], flags: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert found() is bool(getattr(torch.cpu, name)()) is (flags <= cpu_flags())
    monkeypatch.delattr(torch.cpu, name)
    assert found() is False


@has_onednn
@x86_flags
def test_is_mkldnn_bf16_supported_says_what_the_processor_lists() -> None:
    listed = {"avx512vl", "avx512bw", "avx512dq"} <= cpu_flags()
    assert private_torch.onednn_has_bfloat16() is bool(torch.ops.mkldnn._is_mkldnn_bf16_supported()) is listed


def test_maybe_mark_dynamic_saves_a_compilation() -> None:
    assert private_torch.maybe_mark_dynamic() is torch._dynamo.maybe_mark_dynamic
    graphs: list[Any] = []

    def backend(graph: Any, _inputs: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    def double(x: Tensor) -> Tensor:
        return 2 * x

    compiled = torch.compile(double, backend=backend)
    for length in (3, 5, 8):
        x = random(length, 2)
        private_torch.maybe_mark_dynamic()(x, 0)
        assert torch.equal(compiled(x), 2 * x)
    assert len(graphs) == 1


def test_compiled_call_impl_says_whether_a_module_is_compiled() -> None:
    module = nn.Linear(2, 2)
    assert not private_torch.is_compiled(module)
    module.compile()
    assert module._compiled_call_impl is not None
    assert private_torch.is_compiled(module)


def test_set_tqdm_hook_sees_every_bar_and_gives_back_the_hook_before() -> None:
    assert private_torch.set_tqdm_hook is logging.set_tqdm_hook
    seen: list[tuple[Any, ...]] = []

    def hook(factory: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        seen.append(args)
        return factory(*args, **{**kwargs, "disable": True})

    before = private_torch.set_tqdm_hook(hook)
    try:
        assert list(logging.tqdm([1, 2])) == [1, 2]
    finally:
        assert private_torch.set_tqdm_hook(before) is hook
    assert seen == [([1, 2],)]


def test_without_set_tqdm_hook_all_bars_are_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(private_torch, "set_tqdm_hook", None)
    logging.enable_progress_bar()
    with without_progress_bars():
        assert not logging.is_progress_bar_enabled()
    assert logging.is_progress_bar_enabled()


def test_attn_implementation_selects_a_registered_attention() -> None:
    calls: list[Any] = []

    def noted(*args: Any, **kwargs: Any) -> Any:
        calls.append(args)
        return sdpa_attention_forward(*args, **kwargs)

    AttentionInterface.register("noted", noted)
    AttentionMaskInterface.register("noted", sdpa_mask)
    policy, ids = tiny_policy(), torch.tensor([[3, 4, 5]])
    expected = policy.model(input_ids=ids).logits
    assert not calls
    private_torch.set_attention(policy.model.config, "noted")
    assert policy.model.config._attn_implementation == "noted"
    assert torch.equal(policy.model(input_ids=ids).logits, expected)
    assert len(calls) == policy.model.config.num_hidden_layers


def test_no_other_file_uses_a_private_name_of_torch_or_transformers() -> None:
    private = re.compile(
        r"\b(torch|nn|aten|mkldnn|config|logging)(\.\w+)*\._[a-z]|_attn_implementation|logging\.set_tqdm_hook"
    )
    found = {
        f"{file.relative_to(SOURCE)}: {line.strip()}"
        for file in SOURCE.rglob("*.py")
        for line in file.read_text(encoding="utf-8").splitlines()
        if private.search(line) and file.name != "private_torch.py"
    }
    assert found == set()


def test_the_names_that_peft_takes_for_experts_are_those_that_it_takes_away() -> None:
    """It is asked for each name alone; here, of all names at once."""
    model: Any = tiny_model("deepseek_v3", **MIXTURES["deepseek_v3"])
    names = ["o_proj", "kv_b_proj", "gate_proj", "shared_experts.up_proj", "down_proj"]
    config = LoraConfig(target_modules=names)
    found = {name for name in names if private_torch.means_experts(name, config, model)}
    assert found == {"gate_proj", "shared_experts.up_proj", "down_proj"}
    assert config.target_modules == set(names)
    inject_adapter_in_model(config, model)
    assert config.target_modules == set(names) - found
    plain: Any = tiny_model("llama")
    assert not any(private_torch.means_experts(name, LoraConfig(target_modules=names), plain) for name in names)


def test_the_weights_kept_in_float32_are_those_that_transformers_loads_so(tmp_path: Path) -> None:
    folder = tiny_folder(tmp_path, "dots1", **MIXTURES["dots1"])
    for dtype in (torch.bfloat16, torch.float16):
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
        float32 = {name for name, tensor in model.state_dict().items() if tensor.dtype == torch.float32}
        patterns = private_torch.kept_in_float32(model, dtype)
        assert patterns
        assert {n for n in model.state_dict() if any(re.search(rf"(^|\.){p}(\.|$)", n) for p in patterns)} == float32


def test_an_adapted_layer_is_switched_without_a_change_of_what_is_trained() -> None:
    """x W with W = 1, to which the adapters add 2 · 3 and 4 · 5."""
    net = nn.Sequential(nn.Linear(1, 1, bias=False))
    for name, (a, b) in {"one": (2.0, 3.0), "two": (4.0, 5.0)}.items():
        inject_adapter_in_model(LoraConfig(r=1, lora_alpha=1, target_modules=["0"]), net, name)
        layer: Any = net[0]
        nn.init.constant_(layer.lora_A[name].weight, a)
        nn.init.constant_(layer.lora_B[name].weight, b)
    nn.init.ones_(layer.base_layer.weight)
    trained = [p.requires_grad for p in net.parameters()]
    before = []
    for name, expected in ((None, 1.0), ("one", 7.0), ("two", 21.0), (None, 1.0), ("one", 7.0)):
        before.append(private_torch.switch_adapter(layer, name))
        assert net(torch.ones(1, 1)).item() == expected
    assert before == ["two", None, "one", "two", None]
    assert [p.requires_grad for p in net.parameters()] == trained
