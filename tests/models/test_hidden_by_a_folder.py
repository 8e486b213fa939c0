"""A folder goes before what the hub has under its name; where it holds nothing of the kind, both are named."""

import json
import shutil
from pathlib import Path

import pytest

from sharpen.data.rows import read_rows
from sharpen.errors import DataError, ModelError
from sharpen.models.load import located
from sharpen.models.policy import load_policy
from tiny_models import tiny_folder

NAME = "HuggingFaceTB/SmolLM2"
BOTH = (
    f" If you mean a folder, write ./{NAME}. If you mean a model on the hub, the folder {{hiding}} hides it: run "
    f"elsewhere, or fetch it with `hf download {NAME} --local-dir {NAME}`"
)


@pytest.fixture(autouse=True)
def _working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_folder_without_a_model(tmp_path: Path) -> None:
    (tmp_path / NAME).mkdir(parents=True)
    with pytest.raises(ModelError) as error:
        load_policy(NAME)
    assert str(error.value) == f"{NAME}: not a model folder: it has no config.json.{BOTH.format(hiding=NAME)}"
    with pytest.raises(ModelError) as error:
        load_policy(f"./{NAME}")
    assert str(error.value) == f"{NAME}: not a model folder: it has no config.json"


def test_a_folder_of_the_organisation_only(tmp_path: Path) -> None:
    (tmp_path / "HuggingFaceTB" / "SmolLM").mkdir(parents=True)
    with pytest.raises(ModelError) as error:
        load_policy(NAME)
    assert str(error.value) == (
        f"{NAME}: not a model folder: there is no such folder. Did you mean `SmolLM`?"
        f"{BOTH.format(hiding='HuggingFaceTB')}"
    )


def test_an_old_name_of_the_hub_without_an_organisation(tmp_path: Path) -> None:
    (tmp_path / "gpt2").mkdir()
    with pytest.raises(ModelError, match=r"write \./gpt2\. If you mean a model on the hub, the folder gpt2 hides it"):
        load_policy("gpt2")


def test_a_folder_with_a_model_is_the_model(tmp_path: Path) -> None:
    shutil.copytree(tiny_folder(tmp_path / "elsewhere"), tmp_path / NAME)
    assert load_policy(NAME, device="cpu").source == NAME


def test_a_name_that_no_folder_hides_is_the_hubs() -> None:
    assert located(NAME) == NAME


def test_the_base_of_an_adapter(tmp_path: Path) -> None:
    (tmp_path / NAME).mkdir(parents=True)
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text(
        json.dumps({"peft_type": "LORA", "base_model_name_or_path": NAME})
    )
    with pytest.raises(ModelError) as error:
        load_policy("./adapter")
    said = f"its base model, {NAME}, is a folder without config.json.{BOTH.format(hiding=NAME)}"
    assert str(error.value).endswith(said)


def test_a_folder_without_data(tmp_path: Path) -> None:
    (tmp_path / "openai" / "gsm8k").mkdir(parents=True)
    with pytest.raises(DataError) as error:
        read_rows("openai/gsm8k?split=train")
    assert str(error.value).startswith("openai/gsm8k?split=train: no dataset could be loaded from this folder: ")
    assert "write ./openai/gsm8k. If you mean a dataset on the hub, the folder openai/gsm8k hides it" in str(
        error.value
    )
    assert "`hf download openai/gsm8k --repo-type dataset --local-dir openai/gsm8k`" in str(error.value)


def test_a_folder_with_other_data_is_named_as_the_folder(tmp_path: Path) -> None:
    (tmp_path / "openai" / "gsm8k").mkdir(parents=True)
    (tmp_path / "openai" / "gsm8k" / "train.jsonl").write_text('{"text": "a"}\n')
    rows = read_rows("openai/gsm8k?split=train")
    assert rows.where(0) == "./openai/gsm8k?split=train, row 1"
    assert read_rows("./openai/gsm8k?split=train").where(0) == "./openai/gsm8k?split=train, row 1"


def test_a_folder_that_is_named_like_a_file(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").mkdir()
    with pytest.raises(DataError, match=r"rows\.jsonl: is a folder, and its name ends like a \.jsonl file"):
        read_rows("rows.jsonl")
