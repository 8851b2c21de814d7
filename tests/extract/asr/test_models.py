"""Which Whisper is meant: names, files and folders, and what each engine can take of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from configs.schema.features import Asr
from extract.asr.models import check_asr


@pytest.mark.parametrize("model", ["nowhere.pt", "./nowhere", "models/nowhere.bin", "~/nowhere.pt"])
def test_a_checkpoint_that_is_not_there(model: str) -> None:
    with pytest.raises(ValueError, match=rf"asr\.model: no checkpoint file {model}; give a Whisper name such as"):
        check_asr(Asr(model))


@pytest.mark.parametrize("model", ["nowhere.pt", "./nowhere", "~/nowhere"])
def test_what_transformers_is_to_read_is_looked_for_at_once(model: str) -> None:
    with pytest.raises(ValueError, match=rf"asr\.model: no folder or file {model}; give a folder, a hub name, or a"):
        check_asr(Asr(model, engine="transformers"))


def test_names_and_files_of_recognisers_pass(tmp_path: Path) -> None:
    (tmp_path / "model.pt").touch()
    check_asr(Asr("base.en", "en"))
    check_asr(Asr(str(tmp_path / "model.pt"), "de"))
    check_asr(Asr("base", "de"))
    check_asr(Asr("base.en", "English"))
    for model in (str(tmp_path), str(tmp_path / "model.pt"), "base.en", "openai/whisper-tiny"):
        check_asr(Asr(model, engine="transformers"))


def test_a_folder_is_not_given_to_an_engine_that_reads_none(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"is a folder; set asr\.engine=transformers, or give a \.pt file"):
        check_asr(Asr(str(tmp_path)))


@pytest.mark.parametrize(("model", "instead"), [("base.en", "base"), ("medium.en", "medium"), ("other.en", "base")])
def test_a_recogniser_of_english_is_not_asked_for_another_language(model: str, instead: str) -> None:
    """It wrote English nonsense for whatever it heard."""
    message = rf"^asr\.language=de: asr\.model={model} knows English alone; set asr\.model={instead}$"
    with pytest.raises(ValueError, match=message):
        check_asr(Asr(model, "de"))


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("base.en", "openai/whisper-base.en"),
        ("large", "openai/whisper-large-v3"),
        ("turbo", "openai/whisper-large-v3-turbo"),
        ("openai/whisper-tiny", "openai/whisper-tiny"),
        ("someone/whisper-base.en", "someone/whisper-base.en"),
    ],
)
def test_openais_names_are_the_hubs(model: str, expected: str) -> None:
    assert Asr(model).hub_name == expected


def test_a_batch_size_that_nobody_reads_is_refused() -> None:
    with pytest.raises(ValueError, match=r"batch_size: whisper-timestamped takes one clip at a time; set engine=t"):
        Asr("base.en", batch_size=8)
