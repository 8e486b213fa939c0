"""Who takes part, and with what settings: each contestant has those that were fastest for it in trials."""

from __future__ import annotations

from pathlib import Path

import torch
from cases import Case
from contestants import ROOT, THREADS, Contestant

from sharpen.models.dtype import Dtype, resolve_dtype

OURS, TRL, VLLM = ".venv", ".venv-bench/trl", ".venv-bench/vllm"
TRL_SEQUENCES = {
    "tiny-12x16": 64,
    "tiny-64x64": 32,
    "tiny-256x64": 8,
    "tiny-512x32": 8,
    "smollm2-48x48": 16,
    "smollm2-256x32": 8,
    "smollm2-768x32": 4,
}
"""Per micro-batch."""
TCMALLOC = (
    ROOT / ".venv-bench/lib/libtcmalloc_minimal.so.4",
    Path("/usr/lib/x86_64-linux-gnu/libtcmalloc_minimal.so.4"),
)


def dtype_of(case: Case) -> Dtype:
    """What all compute a case in, and what its floor is for: the type that is fastest on this processor."""
    return "float32" if case.model == "tiny" else resolve_dtype("auto", torch.device("cpu"))


def stepping(case: Case) -> list[Contestant]:
    """Whole training steps. sharpen's weights are float32 in any case, TRL's are of the type it computes in."""
    trl = {
        "weights": dtype_of(case),
        "autocast": False,
        "sequences": TRL_SEQUENCES[case.name],
        "optimizer": "adamw_torch_fused",
    }
    return [
        Contestant("sharpen", "step_sharpen.py", OURS, {"dtype": dtype_of(case)}),
        Contestant("TRL", "step_trl.py", TRL, trl),
    ]


def drawing(case: Case) -> list[Contestant]:
    """Sampling alone."""
    dtype = {"dtype": dtype_of(case)}
    return [
        Contestant("sharpen", "draw_sharpen.py", OURS, dtype),
        Contestant("transformers generate", "draw_generate.py", OURS, dtype),
        Contestant("vLLM, eager", "draw_vllm.py", VLLM, {**dtype, "eager": True}, _vllm_variables()),
        Contestant("vLLM, compiled", "draw_vllm.py", VLLM, {**dtype, "eager": False}, _vllm_variables()),
    ]


def _vllm_variables() -> dict[str, str]:
    """All processors for its threads, and the libraries that its manual says to preload, where they are there."""
    wanted = (next((path for path in TCMALLOC if path.is_file()), None), ROOT / VLLM / "lib/libiomp5.so")
    return {
        "VLLM_CPU_OMP_THREADS_BIND": f"0-{THREADS - 1}",
        "VLLM_CPU_KVCACHE_SPACE": "2",
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "LD_PRELOAD": ":".join(str(path) for path in wanted if path is not None and path.is_file()),
    }
