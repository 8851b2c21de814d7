"""Tokenizers are checked like weights are: a text whose words are not known must not become a row."""

from __future__ import annotations

import importlib
import importlib.util
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from extract.encoders.catalogue import encoder_class
from extract.encoders.models import VOCABULARIES, check_preprocessing, find_model
from extract.encoders.text import load_tokenizer
from tests.tiny.encoders import WORDS, WRITERS
from tests.tiny.places import CASES, needs_cases

SENTENCES = ["Kids are talking by the door", "Dogs are sitting by the door"]
needs_sentencepiece = pytest.mark.skipif(
    importlib.util.find_spec("sentencepiece") is None, reason="this environment is older than requirements.txt"
)


@pytest.fixture
def roberta(tmp_path: Path) -> Path:
    return WRITERS["roberta"][1](tmp_path / "roberta")


def rows_of(folder: Path) -> np.ndarray:
    """Each sentence encoded alone: the last layer's rows."""
    model = find_model(str(folder))
    encoder = encoder_class("text", model)(model, torch.device("cpu"))
    with torch.inference_mode():
        return np.stack([encoder.encode([text])[0, -1] for text in SENTENCES])


def without_tokenizer(folder: Path) -> Path:
    for pattern in (*VOCABULARIES, "tokenizer_config.json"):
        for file in folder.glob(pattern):
            file.unlink()
    return folder


def refuses(folder: Path, message: str) -> None:
    for refuse in (lambda model: check_preprocessing("text", model), load_tokenizer):
        with pytest.raises(ValueError, match=message):
            refuse(find_model(str(folder)))


MISSING = r"encoders\.text: .* has no tokenizer \(tokenizer\.json, .*\); copy the files of the tokenizer there"


def test_a_model_without_a_tokenizer_is_refused(roberta: Path) -> None:
    """transformers makes one up: every sentence had one and the same row, and nobody was told."""
    refuses(without_tokenizer(roberta), MISSING)


@needs_cases
def test_the_case_without_a_tokenizer_is_refused() -> None:
    refuses(CASES / "roberta-without-tokenizer", MISSING)


def test_a_tokenizer_that_knows_no_word_is_refused(roberta: Path) -> None:
    file = roberta / "tokenizer.json"
    stated = json.loads(file.read_text())
    stated["model"]["vocab"] = {word: n for word, n in stated["model"]["vocab"].items() if word.startswith("<")}
    file.write_text(json.dumps(stated))
    with pytest.raises(ValueError, match=r"the tokenizer knows no word of 8 languages; its files are damaged"):
        load_tokenizer(find_model(str(roberta)))


def test_a_tokenizer_of_one_language_passes_whichever_it_is(roberta: Path) -> None:
    file = roberta / "tokenizer.json"
    stated = json.loads(file.read_text())
    stated["model"]["vocab"] = {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3, "у": 4}  # noqa: RUF001
    file.write_text(json.dumps(stated))
    load_tokenizer(find_model(str(roberta)))


def test_a_vocabulary_that_does_not_fit_the_embedding_is_refused(roberta: Path) -> None:
    """The clips whose words lay past its end failed one by one, with an index error."""
    file = roberta / "tokenizer.json"
    stated = json.loads(file.read_text())
    stated["model"]["vocab"]["another"] = len(WORDS)
    file.write_text(json.dumps(stated))
    message = (
        rf"tokens up to number {len(WORDS)}, the network's vocabulary ends at {len(WORDS) - 1}; they are of differ"
    )
    with pytest.raises(ValueError, match=message):
        load_tokenizer(find_model(str(roberta)))


def test_a_damaged_tokenizer_is_one_line(roberta: Path) -> None:
    (roberta / "tokenizer.json").write_text("{")
    with pytest.raises(ValueError, match=r"^.*roberta: transformers cannot load the tokenizer \(.*\)$"):
        load_tokenizer(find_model(str(roberta)))


def test_files_of_sentencepiece_are_settings(roberta: Path) -> None:
    (roberta / "spm.model").write_bytes(b"one")
    first = find_model(str(roberta)).settings_sha256
    (roberta / "spm.model").write_bytes(b"other")
    assert find_model(str(roberta)).settings_sha256 != first


def test_without_sentencepiece_its_files_say_what_to_install(roberta: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (without_tokenizer(roberta) / "spm.model").write_bytes(b"\x0a")
    monkeypatch.setattr("extract.encoders.text.find_spec", lambda name: None if name == "sentencepiece" else object())
    with pytest.raises(ValueError, match=r"a SentencePiece file, which needs sentencepiece; run pip install -r req"):
        load_tokenizer(find_model(str(roberta)))


# What each kind of model calls the file, and the tokens that its vocabulary starts with.
PIECES: dict[str, tuple[str, dict[str, Any]]] = {
    "deberta-v2": ("spm.model", {"pad_id": 0, "pad_piece": "[PAD]", "bos_id": 1, "bos_piece": "[CLS]", "eos_id": 2}),
    "albert": ("spiece.model", {"pad_id": 0, "unk_id": 1, "bos_id": -1, "eos_id": -1, "pad_piece": "<pad>"}),
    "xlm-roberta": ("sentencepiece.bpe.model", {"unk_id": 0, "bos_id": 1, "eos_id": 2, "pad_id": -1}),
}


def write_pieces(folder: Path, kind: str) -> Any:
    """Train a SentencePiece model on the two sentences, in place of the folder's tokenizer; returns its processor."""
    sentencepiece = importlib.import_module("sentencepiece")
    name, own = PIECES[kind]
    more: dict[str, Any] = {"control_symbols": ["[CLS]", "[SEP]", "[MASK]"]} if kind == "albert" else {}
    if kind == "deberta-v2":
        more = {"eos_piece": "[SEP]", "unk_id": 3, "unk_piece": "[UNK]"}
    with (folder / name).open("wb") as file:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(SENTENCES * 20),
            model_writer=file,
            vocab_size=32,
            hard_vocab_limit=False,
            minloglevel=2,
            **own,
            **more,
        )
    return sentencepiece.SentencePieceProcessor(model_file=str(folder / name))


@needs_sentencepiece
@pytest.mark.parametrize("kind", PIECES)
def test_a_tokenizer_that_is_one_file_of_sentencepiece_works(tmp_path: Path, kind: str) -> None:
    """All words were unknown, or the file was read as another format and the error was about that."""
    from tests.tiny import encoders

    words = encoders.WORDS + [f"more{number}" for number in range(30)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encoders, "WORDS", words)
        folder = without_tokenizer(WRITERS[kind][1](tmp_path / kind))
    pieces = write_pieces(folder, kind)
    tokenizer = load_tokenizer(find_model(str(folder)))
    for text in SENTENCES:
        tokens = tokenizer.convert_ids_to_tokens(tokenizer(text, add_special_tokens=False).input_ids)
        spoken = text.lower() if kind == "albert" else text
        assert tokens == pieces.encode(spoken, out_type=str)
    first, second = rows_of(folder)
    assert not np.allclose(first, second, atol=1e-3)


@needs_cases
@needs_sentencepiece
def test_the_case_with_spm_model_alone_works() -> None:
    first, second = rows_of(CASES / "deberta-v3-spm-only")
    assert not np.allclose(first, second, atol=1e-3)


# Weights in the format before torch 1.6


def test_weights_in_the_old_pickle_format_load(roberta: Path, tmp_path: Path) -> None:
    """They are no archive, and cannot be mapped into memory: a traceback, and three restarts."""
    from safetensors.torch import load_file

    old = tmp_path / "old"
    shutil.copytree(roberta, old)
    weights = load_file(old / "model.safetensors")
    (old / "model.safetensors").unlink()
    torch.save(weights, old / "pytorch_model.bin", _use_new_zipfile_serialization=False)
    np.testing.assert_array_equal(rows_of(old), rows_of(roberta))


@needs_cases
def test_the_case_in_the_old_pickle_format_loads() -> None:
    first, second = rows_of(CASES / "roberta-legacy-bin")
    assert not np.allclose(first, second, atol=1e-3)
