from __future__ import annotations

from cache.names import by_number, did_you_mean, nearest


def test_the_nearest_known_name_or_none() -> None:
    assert nearest("audoi", ["video", "audio"]) == "audio"
    assert did_you_mean("audoi", {"video": 1, "audio": 2}) == " (did you mean audio?)"
    assert nearest("xyz", ["video", "audio"]) is None
    assert did_you_mean("xyz", ["video", "audio"]) == did_you_mean("audio", []) == ""


def test_speakers_stand_by_number_and_then_by_letters() -> None:
    assert by_number({"10", "Anna", "9", "2", "Äneas", "1b"}) == ("2", "9", "10", "1b", "Anna", "Äneas")
    # Digits of another alphabet are letters of a name, as in `cache.corpus.clips.normal_speaker`.
    assert by_number(["٣", "7", "07"]) == ("07", "7", "٣")
