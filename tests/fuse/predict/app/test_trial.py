"""What happens behind the page: files are read once, limits hold, sliders move the answer, and nothing is written."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cache.conditions import UNCHANGED
from cache.corpus.clips import read_corpus
from cache.files.atomic import write_atomic
from cache.media import Media
from configs.loader import dump_config
from configs.schema.features import Asr, Encoders, FeaturesConfig, MediaSettings
from configs.schema.fusion import FusionConfig, Optim
from configs.schema.predict import AppConfig
from extract.asr.transcript import Transcript
from extract.run.plan import make_plan, prepare_stores
from extract.run.unit import load_tools, process_unit
from fuse import train
from fuse.predict.app import pictures
from fuse.predict.app.__main__ import load_trial
from fuse.predict.app.page import Page
from fuse.predict.app.trial import NO_NOISE_DB, Trial, conditions
from fuse.predict.encode import EncodedClip
from fuse.predict.model import Prediction
from tests.tiny.corpus import tone, write_mp4, write_tiny_corpus, write_tiny_encoders

STILL = (NO_NOISE_DB, 0)


@dataclass(frozen=True)
class Site:
    """A trained run, its corpus, and a folder for uploads."""

    root: Path
    trial: Trial

    @property
    def page(self) -> Page:
        return Page(self.trial)

    def uploaded(self, name: str = "mine.mp4") -> str:
        folder = self.root / "uploads/abc"
        folder.mkdir(parents=True, exist_ok=True)
        return shutil.copy(next((self.root / "corpus").rglob("*.mp4")), str(folder / name))

    def limited(self, **changed: float) -> Trial:
        config = replace(self.trial.config, **changed)  # type: ignore[arg-type]
        return Trial(self.trial.model, config, self.root / "uploads")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    root = tmp_path_factory.mktemp("app")
    metadata = write_tiny_corpus(root / "corpus", ("1", "2", "21", "23"), ("happy", "sad"), takes=2)
    folders = write_tiny_encoders(root / "encoders")
    config = FeaturesConfig(
        corpus=str(metadata),
        features_dir=str(root / "features"),
        encoders=Encoders(str(folders["audio"]), str(folders["video"]), None),
        asr=Asr(model=None),
        conditions=(UNCHANGED,),
        media=MediaSettings(size=32),
    )
    plan = make_plan(config)
    prepare_stores(plan)
    tools = load_tools(plan, {"audio", "video"}, torch.device("cpu"))
    for unit in plan.units:
        process_unit(plan, unit, tools)
    write_atomic(root / "features/config.yaml", dump_config(config))
    run = FusionConfig(
        corpus=str(metadata),
        features_dir=str(root / "features"),
        modalities=("audio", "video"),
        protocol="holdout",
        optim=Optim(epochs=8, lr=3e-3),
        output_dir=str(root / "fusion"),
    )
    assert train.run(run) == 0
    app = AppConfig(run=str(root / "fusion"), examples=str(metadata), examples_shown=4, windows=3)
    return Site(root, load_trial(app, root / "uploads"))


def test_an_upload_is_answered_as_predict_answers_and_deleted(site: Site) -> None:
    file = site.uploaded()
    (known,) = site.trial.model.predictions([Path(file)])
    tried, answer, heard, given, contributions = site.page.upload(file, "", *STILL)
    assert not Path(file).exists()
    assert tried.prediction.probabilities == pytest.approx(dict(known.probabilities), abs=1e-6)
    assert f'<h3 class="label">{known.label}</h3>' in answer
    assert "listens to no words" in heard
    assert "data:image/png;base64," in given
    assert "data:audio/wav;base64," in given
    assert "being computed" in contributions


def test_sliders_move_the_prediction_and_their_ends_do_nothing(site: Site) -> None:
    tried, *_ = site.page.upload(site.uploaded(), "", *STILL)
    same, *_ = site.page.again(tried, "", *STILL)
    noisy, *_ = site.page.again(tried, "", -10, 0)
    covered, *_ = site.page.again(tried, "", NO_NOISE_DB, 80)
    assert same.prediction.probabilities == tried.prediction.probabilities
    assert noisy.prediction.probabilities != tried.prediction.probabilities
    assert covered.prediction.probabilities != tried.prediction.probabilities
    assert noisy.read is tried.read
    assert not np.array_equal(covered.changed.frames_THWC, tried.changed.frames_THWC)
    assert [one.name for one in conditions(-10, 80)] == ["noise-white-minus10db", "occlude-block-80"]
    assert conditions(*STILL) == []


def test_windows_tell_where_it_is_and_in_which_signal(site: Site) -> None:
    """The labels differ in sound and picture; what is taken away is one window of one of them."""
    tried, *_ = site.page.upload(site.uploaded(), "", *STILL)
    parts = site.trial.windows(tried)
    assert [(part.start, part.end) for part in parts] == [(0, 1 / 3), (1 / 3, 2 / 3), (2 / 3, 1)]
    assert all(set(part.contributions) == {"audio", "video"} for part in parts)
    assert any(abs(part.contributions["audio"]) > 1e-4 for part in parts)
    shown = site.page.windows(tried)
    assert shown.count("<th>") == 2 + 3 + 2
    assert site.page.windows(None) == ""


def test_examples_are_chosen_by_their_ids(site: Site) -> None:
    """And are of every label: every fourth of this table was of the same one."""
    assert len(site.trial.example_names) == 4
    assert {name.split()[0] for name in site.trial.example_names} == {"happy", "sad"}
    corpus = read_corpus(site.root / "corpus/metadata.csv")
    assert set(site.trial.example_names.values()) <= {clip.clip_id for clip in corpus.clips}
    tried, *_ = site.page.example(list(site.trial.example_names.values())[1], *STILL)
    assert tried.prediction.label in ("happy", "sad")
    nothing, said, *_ = site.page.example("../../etc/passwd", *STILL)
    assert nothing is None
    assert "no such example" in said


def test_no_file_but_an_upload_is_opened_or_deleted(site: Site, tmp_path: Path) -> None:
    private = tmp_path / "private.mp4"
    shutil.copy(site.uploaded(), private)
    link = Path(site.uploaded("link.mp4"))
    link.unlink()
    link.symlink_to(private)
    for file in (str(private), str(site.root / "uploads/../corpus/metadata.csv"), str(link)):
        nothing, said, *_ = site.page.upload(file, "", *STILL)
        assert nothing is None
        assert "only uploaded files are opened" in said
    assert private.exists()


def test_limits_hold_and_what_is_refused_is_deleted_too(site: Site) -> None:
    for limits, words in (
        ({"max_megabytes": 0.001}, "larger than 0.001 MB"),
        ({"max_seconds": 0.2}, "longer than 0.2 s"),
    ):
        file = site.uploaded()
        with pytest.raises(ValueError, match=words):
            site.limited(**limits).read_upload(file)
        assert not Path(file).exists()
    damaged = Path(site.uploaded("bad.mp4"))
    damaged.write_text("<script>no film</script>")
    _, said, *_ = site.page.upload(str(damaged), "", *STILL)
    assert "could not be read" in said
    assert not damaged.exists()


def test_what_has_no_answer_says_so(site: Site) -> None:
    assert "choose a clip first" in site.page.again(None, "", *STILL)[1]
    assert "no file came" in site.page.upload(None, "", *STILL)[1]
    file = site.uploaded("quiet.mp4")
    write_mp4(Path(file), np.zeros_like(tone(0.5)), None)
    tried, *_ = site.page.upload(file, "", *STILL)
    kept, said, *_ = site.page.again(tried, "", 0, 0)
    assert kept is tried
    assert "No answer:" in said


def test_text_of_others_is_text_on_the_page(site: Site) -> None:
    tried, *_ = site.page.upload(site.uploaded("<b>.mp4"), "", *STILL)
    assert "&lt;b&gt;.mp4" in pictures.given(tried)
    heard = replace(tried.prediction, heard=Transcript("<script>alert(1)</script>"))
    assert "&lt;script&gt;" in pictures.heard(replace(tried, prediction=heard))


def test_words_that_nobody_heard_are_not_called_heard(site: Site) -> None:
    """A statement from the table stood in a panel called Heard."""
    tried, *_ = site.page.upload(site.uploaded(), "", *STILL)
    for words, listened in (("[]", False), ('[["kids", 0.1, 0.5]]', True)):
        said = replace(tried.prediction, heard=Transcript("kids", words=words))
        assert ("nobody listened" in pictures.heard(replace(tried, prediction=said))) != listened


def test_a_clip_without_sound_counts_in_per_cent_and_what_is_missing_is_said(site: Site) -> None:
    tried, *_ = site.page.upload(site.uploaded(), "", *STILL)
    silent, *_ = (site.trial.look("film", Media(None, tried.read.frames_THWC), "", *STILL),)
    assert "audio is missing (no sound)" in pictures.answer(silent)
    assert "33 to 67 %" in pictures.contributions(silent, site.trial.windows(silent))
    assert "<audio" not in pictures.given(silent)


def test_words_of_a_window_are_left_out() -> None:
    from fuse.predict.windows import _without

    words = '[{"text": "kids", "start_seconds": 0.1}, {"text": "talk", "start_seconds": 0.8}]'
    encoded = EncodedClip({}, {}, Transcript("kids talk", words))
    media = Media(np.ones(16_000, np.float32), None)
    assert _without(media, encoded, 0, 0.5)["text"] == "talk"
    assert _without(media, encoded, 0.5, 1)["text"] == "kids"
    assert "text" not in _without(media, encoded, 0.3, 0.6)
    assert _without(media, encoded, 0.3, 0.6)["audio"].sum() == pytest.approx(16_000 * 0.7, abs=2)


def test_unfamiliar_clips_are_marked(site: Site) -> None:
    tried, *_ = site.page.upload(site.uploaded(), "", *STILL)
    strange: Prediction = replace(tried.prediction, unfamiliar=("audio",))
    assert "do not rely on this answer" in pictures.answer(replace(tried, prediction=strange))
