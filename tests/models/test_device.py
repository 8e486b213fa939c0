"""The device that a user names: used, or refused with what to write instead."""

import pytest
import torch

from sharpen.errors import ModelError
from sharpen.models.device import resolve_device


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (
            "cdua",
            "which PyTorch does not know: use auto, cpu, cuda or a GPU by its number, such as cuda:1. Did you mean",
        ),
        ("CPU", "which PyTorch does not know"),
        ("cuda:-1", "which PyTorch does not know"),
        ("meta", "on which nothing is computed"),
        ("xla", "on which PyTorch cannot compute here: use auto or cpu"),
    ],
)
def test_a_device_that_is_not_there(name: str, said: str) -> None:
    with pytest.raises(ModelError) as error:
        resolve_device(name)
    assert name in str(error.value)
    assert said in str(error.value)


def test_a_gpu_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    with pytest.raises(ModelError, match="the device is cuda:2, but this machine has 2 GPUs, numbered from cuda:0"):
        resolve_device("cuda:2")
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(ModelError, match="the device is cuda, but PyTorch finds no GPU"):
        resolve_device("cuda")
    assert resolve_device("auto") == resolve_device("cpu") == torch.device("cpu")
