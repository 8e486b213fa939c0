"""A root module sharded over two processes (FSDP2 on gloo) computes what the whole one does."""

from pathlib import Path

import pytest
import torch

from sharded_models import WORLD, compare
from tiny_models import tiny_folder


@pytest.mark.skipif(not torch.distributed.is_available(), reason="this PyTorch has no torch.distributed")
def test_sharding_changes_no_output_no_gradient_and_no_update(tmp_path: Path) -> None:
    model = tiny_folder(tmp_path / "model")
    torch.multiprocessing.spawn(compare, args=(str(tmp_path / "store"), str(model)), nprocs=WORLD)
