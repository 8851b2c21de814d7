"""A path of a manifest from another system is the file that it means; one that leaves the corpus is none."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest

from cache.corpus.paths import meant_path, missing_files

COMPOSED, DECOMPOSED = (unicodedata.normalize(form, "Übung/glücklich.wav") for form in ("NFC", "NFD"))


def make(root: Path, *names: str) -> None:
    for name in names:
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"sound")


def test_backslashes_are_slashes_unless_they_are_part_of_a_name(tmp_path: Path) -> None:
    make(tmp_path, "Actor_01/0.wav", "odd\\name.wav")
    assert meant_path(tmp_path, "Actor_01\\0.wav") == "Actor_01/0.wav"
    assert meant_path(tmp_path, "odd\\name.wav") == "odd\\name.wav"
    assert meant_path(tmp_path, "Actor_02\\0.wav") == "Actor_02/0.wav"


@pytest.mark.parametrize(("there", "written"), [(COMPOSED, DECOMPOSED), (DECOMPOSED, COMPOSED)])
def test_an_umlaut_in_one_character_or_two_is_the_same_umlaut(there: str, written: str, tmp_path: Path) -> None:
    make(tmp_path, there)
    assert (tmp_path / meant_path(tmp_path, written)).read_bytes() == b"sound"
    assert meant_path(tmp_path, written.replace("/", "\\")) == there
    assert meant_path(tmp_path, f"no/{written}") == f"no/{written}"


@pytest.mark.parametrize(
    "name",
    ["take #3.wav", "Interview: happy.wav", "a: b.wav", "RAVDESS #2/a.wav", "100%.wav", "a'b\"c.wav", "[1]*?.wav"],
)
def test_a_name_that_is_there_is_that_file(name: str, tmp_path: Path) -> None:
    make(tmp_path, name)
    assert meant_path(tmp_path, name) == name


@pytest.mark.parametrize(
    "path", ["/etc/passwd", "..\\a.wav", "a/../../b.wav", "C:\\clips\\a.wav", "\\\\server\\x\\a.wav"]
)
def test_a_path_that_leaves_the_root_is_refused(path: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="must be relative to the corpus root and stay inside it"):
        meant_path(tmp_path, path)


def test_a_link_out_of_the_root_is_refused_in_any_spelling(tmp_path: Path) -> None:
    make(tmp_path, "outside/a.wav")
    root = tmp_path / "root"
    root.mkdir()
    (root / "Ü").symlink_to(tmp_path / "outside", target_is_directory=True)
    for path in ("Ü/a.wav", "Ü\\a.wav", unicodedata.normalize("NFD", "Ü/a.wav")):
        with pytest.raises(ValueError, match="leads out of the corpus root"):
            meant_path(root, path)


def test_missing_and_empty_files_are_counted_in_one_line(tmp_path: Path) -> None:
    make(tmp_path, "a.wav")
    (tmp_path / "b.wav").touch()
    (tmp_path / "d").mkdir()
    assert missing_files(tmp_path, ["a.wav"]) == ""
    assert missing_files(tmp_path, ["a.wav", "b.wav", "c.wav", "d"]) == (
        f"2 of 4 files are missing, first: c.wav; 1 of 4 files are empty, first: b.wav; paths start from {tmp_path}"
    )
