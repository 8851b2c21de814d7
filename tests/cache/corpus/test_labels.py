"""Labels belong to the corpus: any names in any language, in an order that is the same whoever reads it."""

from __future__ import annotations

import random
import tempfile
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache.corpus.clips import Clip, read_corpus, write_metadata
from cache.corpus.labels import unprintable
from cache.corpus.ravdess import LABELS

GREEK = ("χαρά", "λύπη", "θυμός")
# Any text of one line that is not blank at its ends.
label_texts = st.text(min_size=1, max_size=12).map(str.strip).filter(lambda text: text and not unprintable(text))


def corpus_of(folder: Path, *labels: str, ids: str = "clip-{}") -> Path:
    clips = [Clip(ids.format(n), f"{n}.wav", label, f"s{n % 3}") for n, label in enumerate(labels)]
    write_metadata(clips, folder / "metadata.csv")
    return folder / "metadata.csv"


def ravdess(folder: Path, *labels: str) -> Path:
    return corpus_of(folder, *labels, ids="03-01-01-01-01-01-1{}")


def list_labels(folder: Path, *labels: str) -> None:
    (folder / "labels.txt").write_text("".join(f"{label}\n" for label in labels), encoding="utf-8")


def test_labels_of_other_alphabets_are_labels(tmp_path: Path) -> None:
    """Once any label but RAVDESS's eight was refused."""
    assert read_corpus(corpus_of(tmp_path, *GREEK)).labels == ("θυμός", "λύπη", "χαρά")


def test_a_list_gives_the_order_and_what_nobody_shows(tmp_path: Path) -> None:
    metadata = corpus_of(tmp_path, "χαρά", "λύπη")
    list_labels(tmp_path, *GREEK)
    assert read_corpus(metadata).labels == GREEK


def test_a_list_may_be_yaml(tmp_path: Path) -> None:
    metadata = corpus_of(tmp_path, "χαρά", "λύπη")
    (tmp_path / "labels.yaml").write_text("labels: [χαρά, λύπη, θυμός]\n", encoding="utf-8")
    assert read_corpus(metadata).labels == GREEK


def test_windows_lines_and_a_byte_order_mark_do_not_matter(tmp_path: Path) -> None:
    metadata = corpus_of(tmp_path, *GREEK)
    (tmp_path / "labels.txt").write_bytes(b"\xef\xbb\xbf" + "\r\n".join(GREEK).encode())
    assert read_corpus(metadata).labels == GREEK


@pytest.mark.parametrize("present", [("sad",), ("surprised", "neutral"), LABELS[::-1]])
def test_ravdess_has_its_eight_in_their_order_whichever_appear(present: tuple[str, ...], tmp_path: Path) -> None:
    assert read_corpus(ravdess(tmp_path, *present)).labels == LABELS


def test_known_words_come_first_in_their_order_the_others_sorted(tmp_path: Path) -> None:
    metadata = corpus_of(tmp_path, "wrath", "sad", "Greed", "neutral", "envy", "sad")
    assert read_corpus(metadata).labels == ("neutral", "sad", "Greed", "envy", "wrath")


@given(st.lists(label_texts, min_size=1, max_size=12), st.randoms(use_true_random=False))
def test_the_order_of_the_rows_does_not_matter(labels: list[str], rng: random.Random) -> None:
    with tempfile.TemporaryDirectory() as folder:
        corpus = read_corpus(corpus_of(Path(folder), *labels))
        shuffled = rng.sample(labels, len(labels))
        assert read_corpus(corpus_of(Path(folder), *shuffled)).labels == corpus.labels
    assert {clip.label for clip in corpus.clips} == set(corpus.labels)
    assert len(set(corpus.labels)) == len(corpus.labels)


def test_one_word_written_in_two_ways_of_unicode_is_one_label(tmp_path: Path) -> None:
    composed, apart = (unicodedata.normalize(form, "χαρά") for form in ("NFC", "NFD"))
    assert composed != apart
    metadata = corpus_of(tmp_path, composed, apart, "λύπη")
    assert read_corpus(metadata).labels == ("λύπη", composed)
    list_labels(tmp_path, apart, "λύπη")
    assert read_corpus(metadata).labels == (composed, "λύπη")


@pytest.mark.parametrize("typo", ["hapy", "Hapy", "happyy"])
def test_a_known_word_misspelt_beside_itself_is_refused_with_the_way_out(typo: str, tmp_path: Path) -> None:
    metadata = corpus_of(tmp_path, "happy", "wrath", typo)
    with pytest.raises(
        ValueError, match=rf"csv line 4: label '{typo}' beside 'happy' \(did you mean happy\?\).*labels.txt"
    ):
        read_corpus(metadata)
    list_labels(tmp_path, "happy", typo, "wrath")
    assert read_corpus(metadata).labels == ("happy", typo, "wrath")


@pytest.mark.parametrize(
    ("written", "labels"),
    [
        (("Happy ", "happy", "SAD", "sad"), ("happy", "sad")),
        (("HAPPY", "Sad"), ("HAPPY", "Sad")),
        (("Wrath", "Wrath", "wrath", "no  wrath", "No wrath"), ("No wrath", "Wrath")),
        (("ΧΑΡΆ", "χαρά", "χαρά", "λύπη"), ("λύπη", "χαρά")),
    ],
)
def test_capitals_and_spaces_make_no_label_of_their_own(
    written: tuple[str, ...], labels: tuple[str, ...], tmp_path: Path
) -> None:
    """Each spelling was a class of its own, or refused beside a word of RAVDESS's."""
    corpus = read_corpus(corpus_of(tmp_path, *written))
    assert corpus.labels == labels
    assert {clip.label for clip in corpus.clips} == set(labels)
    assert read_corpus(corpus_of(tmp_path, *reversed(written))).labels == labels
    assert len(corpus.notes) == (len({text.strip() for text in written}) > len(labels))


def test_other_spellings_are_said_with_their_clips(tmp_path: Path) -> None:
    assert read_corpus(corpus_of(tmp_path, "happy", "Happy", "Happy", "sad")).notes == (
        "labels that differ in capitals or spaces alone are one: 'Happy' as 'happy' (2 clips)",
    )
    assert read_corpus(corpus_of(tmp_path, "happy", "sad")).notes == ()


def test_a_list_and_ravdess_say_the_spelling(tmp_path: Path) -> None:
    """A label in capitals was unknown."""
    metadata = ravdess(tmp_path, "Sad", " ANGRY")
    assert [clip.label for clip in read_corpus(metadata).clips] == ["sad", "angry"]
    list_labels(tmp_path, "SAD", "Angry")
    assert [clip.label for clip in read_corpus(metadata).clips] == ["SAD", "Angry"]
    list_labels(tmp_path, "A", "a", "Angry", "sad")
    assert [clip.label for clip in read_corpus(ravdess(tmp_path, "a", "A")).clips] == ["a", "A"]


def test_a_mapping_renames_labels_and_leaves_clips_out(tmp_path: Path) -> None:
    """There was no way to say that one corpus's anger is another's angry."""
    metadata = corpus_of(tmp_path, "anger", "Happiness", "boredom", "sad", "boredom")
    corpus = read_corpus(metadata, mapping={"anger": "angry", "happiness": "happy", "boredom": None})
    assert corpus.labels == ("happy", "sad", "angry")
    assert [(clip.clip_id, clip.label) for clip in corpus.clips] == [
        ("clip-0", "angry"),
        ("clip-1", "happy"),
        ("clip-3", "sad"),
    ]
    assert corpus.notes == ("2 clips left out, whose label is null in labels: boredom",)


def test_a_mapping_joins_labels_and_keeps_the_order_of_a_list(tmp_path: Path) -> None:
    metadata = corpus_of(tmp_path, "χαρά", "λύπη", "θυμός")
    list_labels(tmp_path, *GREEK)
    assert read_corpus(metadata, mapping={"θυμός": "negative", "λύπη": "negative"}).labels == ("χαρά", "negative")
    (tmp_path / "labels.txt").unlink()
    assert read_corpus(ravdess(tmp_path, "calm", "sad"), mapping={"calm": "neutral"}).labels == tuple(
        label for label in LABELS if label != "calm"
    )


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({"angr": "angry"}, r"labels: .*csv has no label 'angr' \(did you mean anger\?\); it has: "),
        ({"anger": "angry", "Anger": "mad"}, "labels names anger twice"),
        ({"anger": "hapy"}, r"line 2: label 'hapy' beside 'happy' \(did you mean happy"),
        ({"anger": "happy", "sad": "happy"}, "leaves .* 1 labels; at least 2"),
        ({"anger": None, "sad": None}, "leaves .* 1 labels; at least 2"),
        ({"anger": " "}, "labels.anger: the new name ' ' is empty"),
    ],
)
def test_a_mapping_of_other_labels_is_refused(mapping: dict[str, str | None], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        read_corpus(corpus_of(tmp_path, "anger", "happy", "sad"), mapping=mapping)


@pytest.mark.parametrize("labels", [("unhappy", "happy"), ("hapy", "sad"), ("joy1", "joy2"), ("class 1", "class 10")])
def test_other_words_are_not_taken_for_misspelt_ones(labels: tuple[str, ...], tmp_path: Path) -> None:
    assert set(read_corpus(corpus_of(tmp_path, *labels)).labels) == set(labels)


def test_a_label_that_is_not_in_the_list_is_refused_with_its_line(tmp_path: Path) -> None:
    metadata = corpus_of(tmp_path, "χαρά", "λυπη")
    list_labels(tmp_path, *GREEK)
    message = r"line 3: unknown label 'λυπη' \(did you mean λύπη\?\); known: χαρά, λύπη, θυμός \(as listed in labels"
    with pytest.raises(ValueError, match=message):
        read_corpus(metadata)


def test_a_label_that_ravdess_has_not_is_refused_in_ravdess(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"line 3: unknown label 'bored'; known: neutral, .*list others in labels"):
        read_corpus(ravdess(tmp_path, "sad", "bored"))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("labels.txt", "sad\n", "labels.txt lists 1 labels; give it 2 to 1000"),
        ("labels.txt", "".join(f"c{n}\n" for n in range(1001)), "lists 1001 labels"),
        ("labels.txt", "sad\n\nhappy\n", "label 2 is empty"),
        ("labels.txt", "", "label 1 is empty"),
        ("labels.txt", "sad\nhappy\n sad\n", "label 'sad' stands twice"),
        ("labels.txt", "sad\nhap\tpy\n", r"label 2, 'hap\\tpy', holds the character U\+0009"),
        ("labels.txt", "sad\nhap\u2028py\n", r"holds the character U\+2028"),
        ("labels.yaml", "labels: [sad]\n", "labels.yaml lists 1 labels"),
        ("labels.yaml", "[sad, happy]\n", "must hold one key, labels"),
        ("labels.yaml", "labels: {sad: 1}\n", "must hold one key, labels"),
        ("labels.yaml", "names: [sad, happy]\n", "must hold one key, labels"),
        ("labels.yaml", "labels: [sad, no]\n", "False is not text; put it in quotes"),
        ("labels.yaml", "labels: [sad\n", "is not valid YAML"),
    ],
)
def test_a_list_that_is_none_is_refused_in_one_line(name: str, text: str, message: str, tmp_path: Path) -> None:
    metadata = corpus_of(tmp_path, "sad", "happy")
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=message) as caught:
        read_corpus(metadata)
    assert "\n" not in str(caught.value)


def test_two_lists_and_other_encodings_are_refused(tmp_path: Path) -> None:
    metadata = corpus_of(tmp_path, *GREEK)
    (tmp_path / "labels.txt").write_bytes("\n".join(GREEK).encode("iso8859-7"))
    with pytest.raises(ValueError, match=r"labels\.txt is not UTF-8"):
        read_corpus(metadata)
    (tmp_path / "labels.yaml").write_text("labels: [a, b]\n")
    with pytest.raises(ValueError, match=r"has both labels\.txt and labels\.yaml; keep one"):
        read_corpus(metadata)


def test_a_label_of_two_lines_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"line 3: label 'sa\\nd' holds the character U\+000A"):
        read_corpus(corpus_of(tmp_path, "sa\nd", "happy"))


def test_more_labels_than_can_be_told_apart_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has 1001 different labels; at most 1000"):
        read_corpus(corpus_of(tmp_path, *(f"c{n}" for n in range(1001))))
