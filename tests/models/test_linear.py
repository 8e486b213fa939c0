"""Matrix products through oneDNN against PyTorch's, and where they are used."""

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import linear as torch_linear

from sharpen.models.kernels import linear, private_torch
from sharpen.models.kernels.linear import Linear, outer, product, switch_linears
from tiny_models import loaded_policy

has_onednn = pytest.mark.skipif(
    not torch.backends.mkldnn.is_available() or not private_torch.HAS_ONEDNN_LINEAR,
    reason="this PyTorch has no oneDNN",
)


@pytest.fixture
def onednn_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use oneDNN on any processor and for any size."""
    monkeypatch.setattr(linear, "onednn_is_faster", lambda: True)
    monkeypatch.setattr(linear, "LEAST_OPERATIONS", 0.0)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


INPUTS = {
    "one row": random(1, 24),
    "one row of a row": random(24),
    "many rows": random(301, 24),
    "three axes": random(3, 7, 24),
    "transposed": random(24, 13).t(),
    "every other row": random(26, 24)[::2],
    "columns of a wider one": random(13, 40)[:, 5:29],
    "expanded": random(1, 24).expand(6, 24),
    "no rows": random(0, 24),
    "no rows of three axes": random(2, 0, 24),
}


@has_onednn
@pytest.mark.usefixtures("onednn_everywhere")
@pytest.mark.parametrize("outputs", [1, 5, 24, 100])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("name", INPUTS)
def test_values_and_gradients_equal_torch_in_float64(name: str, bias: bool, outputs: int) -> None:
    module = nn.Linear(24, outputs, bias=bias)
    switch_linears(module)
    assert type(module) is Linear
    input = INPUTS[name].detach().requires_grad_()
    found = module(input)
    upstream = random(*found.shape, seed=1)
    found.backward(upstream)

    exact = [p.detach().double().requires_grad_() for p in (input, *module.parameters())]
    expected = torch_linear(*exact)
    expected.backward(upstream.double())
    assert found.dtype == torch.float32
    assert found.shape == expected.shape
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)
    for mine, theirs in zip((input, *module.parameters()), exact, strict=True):
        # Float32 sums of up to 301 terms of size 1.
        torch.testing.assert_close(mine.grad.double(), theirs.grad, rtol=1e-5, atol=1e-4)


@has_onednn
@pytest.mark.usefixtures("onednn_everywhere")
def test_numbers_worked_out_by_hand() -> None:
    a, b = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[5.0, 6.0], [7.0, 8.0], [0.0, 1.0]])
    assert product(a, b).tolist() == [[17.0, 23.0, 2.0], [39.0, 53.0, 4.0]]
    assert product(a, b, torch.tensor([1.0, 0.0, -1.0])).tolist() == [[18.0, 23.0, 1.0], [40.0, 53.0, 3.0]]
    assert outer(a, product(a, b)).tolist() == [[134.0, 182.0, 14.0], [190.0, 258.0, 20.0]]
    wide = torch.tensor([[1.0, 2.0, 3.0], [0.0, 1.0, 1.0]])
    assert outer(wide, torch.tensor([[2.0], [5.0]])).tolist() == [[2.0], [9.0], [11.0]]


@has_onednn
@pytest.mark.usefixtures("onednn_everywhere")
def test_a_frozen_weight_or_input_gets_no_gradient() -> None:
    module = nn.Linear(24, 5)
    switch_linears(module)
    module.weight.requires_grad_(False)
    input = INPUTS["many rows"].clone().requires_grad_()
    module(input).sum().backward()
    assert module.weight.grad is None
    torch.testing.assert_close(input.grad, module.weight.sum(dim=0).expand(301, 24))
    assert module.bias.grad.tolist() == [301.0] * 5


@has_onednn
@pytest.mark.usefixtures("onednn_everywhere")
def test_float64_and_autocast_use_torch() -> None:
    module = nn.Linear(24, 5)
    own = copy.deepcopy(module)
    switch_linears(module)
    input = INPUTS["many rows"]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert module(input).dtype == torch.bfloat16
        assert torch.equal(module(input), own(input))
    assert torch.equal(module.double()(input.double()), own.double()(input.double()))


@has_onednn
def test_modules_are_not_switched_where_torch_is_as_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear, "onednn_is_faster", lambda: False)
    module = nn.Sequential(nn.Linear(600, 600))
    switch_linears(module)
    assert type(module[0]) is nn.Linear
    a, b = random(600, 600), random(600, 600, seed=1)
    assert torch.equal(product(a, b), a @ b.t())


@pytest.mark.parametrize(
    ("vendor", "capability", "faster"),
    [
        ("AuthenticAMD", "AVX512", True),
        ("AuthenticAMD", "AVX2", False),
        ("GenuineIntel", "AVX512", False),
        ("", "DEFAULT", False),
    ],
)
def test_which_machines_use_onednn(vendor: str, capability: str, faster: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear, "_vendor", lambda: vendor)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: True)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    monkeypatch.setattr(linear, "amd_has_onednn", linear.amd_has_onednn.__wrapped__)
    assert linear.onednn_is_faster.__wrapped__() is faster
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert linear.onednn_is_faster.__wrapped__() is False


@has_onednn
@pytest.mark.usefixtures("onednn_everywhere")
def test_a_loaded_model_keeps_its_names_and_nn_linear_instances(tmp_path: Path) -> None:
    policy = loaded_policy(tmp_path / "model")
    linears = [name for name, module in policy.model.named_modules() if isinstance(module, nn.Linear)]
    # Two layers of q, k, v, o, gate, up, down, and the head.
    assert len(linears) == 15
    assert all(type(policy.model.get_submodule(name)) is Linear for name in linears)
    policy.save(tmp_path / "again")
    assert policy.model.state_dict().keys() == loaded_policy(tmp_path / "model").model.state_dict().keys()
