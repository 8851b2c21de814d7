"""A fine-tuned run stands in the table beside the run that it continues."""

from __future__ import annotations

import shutil
import wave
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cache.conditions import UNCHANGED, JointCondition, parse_joint
from cache.corpus.clips import read_corpus
from cache.features.table import load_table
from cache.media import SAMPLE_RATE_HZ
from configs.command.stop import StopRequest
from configs.schema.features import NoiseSettings
from configs.schema.finetune import FinetuneOptim, Lora
from configs.schema.fusion import FusionConfig, Optim
from configs.schema.studies import RobustnessConfig
from fuse import train
from fuse.finetune.load import clips_of, load
from fuse.finetune.plan import FinetunePlan, plan_finetune
from fuse.finetune.rank import finetune
from fuse.finetune.training.loop import evaluate
from fuse.finetune.training.rows import put_together
from fuse.finetune.training.stepper import World
from fuse.robustness import __main__ as robustness
from fuse.robustness.tuned import TunedEncoders
from fuse.runs.checkpoint import read_checkpoint
from fuse.runs.folder import STAGING
from fuse.scores.predictions import read_predictions
from tests.fuse.finetune.site import ALONE, CPU, NOISE, config_of, no_news, signal, stage_one


@pytest.mark.usefixtures("alone")
def test_its_rows_are_made_by_its_own_encoders_under_every_condition(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fine-tuned runs were refused: cached features do not come from their encoders."""
    monkeypatch.setenv("RANKS", "1")
    optim = FinetuneOptim(epochs=2, batch_size=4, lr=1e-2)
    config = config_of(corpus, optim=optim, lora=Lora(rank=2), export=False, output_dir=str(tmp_path / "tuned"))
    plan = plan_finetune(config)
    finetune(plan, *load(plan, CPU), ALONE, StopRequest())
    run = tmp_path / "tuned" / STAGING
    asked = RobustnessConfig(
        runs=(str(corpus / "fusion"), str(run)),
        conditions=(parse_joint(NOISE),),
        modalities=(("audio", "video", "text"), ("video",)),
        output_dir=str(tmp_path / "table"),
    )
    assert robustness.run(asked) == 0
    found = read_predictions(tmp_path / "table" / run.name / "predictions.csv")
    written = read_predictions(run / "predictions.csv").select(split="test")
    clean = found.select(condition="clean", modalities="audio+video+text")
    assert clean.clip_id.tolist() == written.clip_id.tolist()
    np.testing.assert_allclose(clean.probabilities_NC, written.probabilities_NC, atol=1e-5)
    noisy_plan = plan_finetune(replace(config, condition=parse_joint(NOISE), lora=None, unfreeze="none"))
    model, loaders = load(noisy_plan, CPU)
    checkpoint = read_checkpoint(run / "best_model.pth")
    model.fusion.load_state_dict(checkpoint.state)
    for name, weights in checkpoint.networks.items():
        model.networks[name].load_state_dict(weights)
    logits_NC = evaluate(model, clips_of(noisy_plan, "test"), loaders, ALONE, no_news())
    noisy = found.select(condition=NOISE, modalities="audio+video+text").probabilities_NC
    np.testing.assert_allclose(noisy, torch.from_numpy(logits_NC).double().softmax(1).numpy(), atol=1e-5)
    assert not np.allclose(noisy, clean.probabilities_NC, atol=1e-3)
    assert not len(found.select(condition=NOISE, modalities="video"))


def tuned_run(corpus: Path, out: Path, **changed: Any) -> Path:
    """A run that ends with what it starts with, on whole clips: stage one's features are those of its encoders."""
    optim = FinetuneOptim(epochs=1, batch_size=1, lr=1e-12)
    given = {"optim": optim, "audio_seconds": None, "unfreeze": "none", "export": False, "output_dir": str(out)}
    plan = plan_finetune(config_of(corpus, **{**given, **changed}))
    finetune(plan, *load(plan, CPU), ALONE, StopRequest())
    return out / STAGING


@pytest.mark.usefixtures("alone")
def test_its_rows_are_the_same_on_any_number_of_ranks(corpus: Path, tmp_path: Path) -> None:
    """They were made in one process. Bit for bit: ranks share out whole batches."""
    run = tuned_run(corpus, tmp_path / "tuned")
    conditions = [UNCHANGED, parse_joint(NOISE)]

    def made(ranks: int) -> list[dict[str, np.ndarray]]:
        tuned = TunedEncoders.of(run, read_checkpoint(run / "best_model.pth"), None, None)
        plans = [tuned.plan(condition) for condition in conditions]
        shares = [tuned.encode(plans, World(rank, ranks, CPU)) for rank in range(ranks)]
        return [put_together([share[number] for share in shares], 2, 1) for number in range(len(conditions))]

    one, two, three = made(1), made(2), made(3)
    for alone, *others in zip(one, two, three, strict=True):
        assert np.isfinite(alone["audio"]).all()
        for other in others:
            assert all(np.array_equal(other[name], rows) for name, rows in alone.items())


@pytest.mark.usefixtures("alone")
def test_babble_is_mixed_in_again_as_stage_one_did(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was refused: only make features knew the clips that are heard in it."""
    root = shutil.copytree(corpus, tmp_path / "corpus")
    for row in range(8):
        write_wav(root / f"{row}.mp4", signal(1.0, 100 + row))
    babble = parse_joint("noise-babble-0db")
    stage_one(root, 8, babble)
    init = root / "fusion"
    settings = (init / "config.yaml").read_text().replace(str(corpus), str(root))
    (init / "config.yaml").write_text(settings)
    run = tuned_run(root, tmp_path / "tuned", init=str(init))
    monkeypatch.setenv("RANKS", "1")
    tuned = TunedEncoders.of(run, read_checkpoint(run / "best_model.pth"), None, None)
    tuned.make([UNCHANGED, babble], 1)
    clips = read_corpus(root / "metadata.csv").clips
    cached = load_table(root / "features", clips, ("audio",), babble, "mean", label_names=("happy", "sad"))
    test = [row for row, clip in enumerate(cached.clips) if clip.speaker == "23"]
    np.testing.assert_allclose(tuned.made[babble]["audio"], cached.features["audio"][test], atol=1e-4)
    assert not np.allclose(tuned.made[babble]["audio"], tuned.made[UNCHANGED]["audio"], atol=1e-2)
    # Clips with a root of their own were looked for beside metadata.csv, where there are none.
    voices = root / "voices"
    voices.mkdir()
    for clip in root.glob("*.mp4"):
        shutil.move(clip, voices)
    (root / "features/config.yaml").write_text(f"corpus: {root}/metadata.csv\ncorpus_root: {voices}\n")
    tuned.make([babble], 1)
    write_wav(voices / "1.mp4", signal(1.0, 7))
    with pytest.raises(ValueError, match=r"noise-babble-0db: clips that are heard in it have changed; leave it out"):
        tuned.make([babble], 1)


@pytest.mark.usefixtures("alone")
def test_files_are_mixed_in_again_from_the_folder_that_stage_one_was_given(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They were refused: no store remembers its folder of noise files."""
    noises, noise = tmp_path / "noises", parse_joint("noise-file-0db")
    noises.mkdir()
    write_wav(noises / "hum.wav", signal(2.0, 5))
    features = shutil.copytree(corpus / "features", tmp_path / "features")
    stage_one(corpus, 8, noise, features=features, noise=NoiseSettings(folder=str(noises)))
    start = shutil.copytree(corpus / "fusion", tmp_path / "fusion")
    run = tuned_run(corpus, tmp_path / "tuned", init=str(start), features_dir=str(features))
    monkeypatch.setenv("RANKS", "1")
    asked = RobustnessConfig(
        runs=(str(run),),
        conditions=(noise,),
        modalities=(("audio", "video", "text"),),
        noise=NoiseSettings(folder=str(noises)),
        output_dir=str(tmp_path / "table"),
    )
    planned: list[str] = []
    plan = TunedEncoders.plan

    def noted(own: TunedEncoders, condition: JointCondition) -> FinetunePlan:
        planned.append(condition.name)
        return plan(own, condition)

    monkeypatch.setattr(TunedEncoders, "plan", noted)
    assert robustness.run(asked) == 0
    # Plans were made three times for each condition: the whole corpus read, and what babbles hashed, for each.
    assert planned == ["clean", "noise-file-0db"]
    tuned = read_predictions(tmp_path / "table/predictions.csv")
    # Its encoders are those of the features: a head on these says the same.
    frozen = replace(asked, runs=(str(start),), features_dir=str(features), output_dir=str(tmp_path / "frozen"))
    assert robustness.run(frozen) == 0
    expected = read_predictions(tmp_path / "frozen/predictions.csv")
    np.testing.assert_allclose(tuned.probabilities_NC, expected.probabilities_NC, atol=1e-4)
    clean, noisy = (tuned.select(condition=name).probabilities_NC for name in ("clean", "noise-file-0db"))
    assert not np.allclose(clean, noisy, atol=1e-3)
    unsaid = replace(asked, noise=NoiseSettings())
    with pytest.raises(ValueError, match=r"noise-file-0db: nothing says which folder .* noise\.folder=<that of make"):
        robustness.run(unsaid)
    # What the last make features was given will do.
    (features / "config.yaml").write_text(f"corpus: {corpus}/metadata.csv\nnoise:\n  folder: {noises}\n")
    assert robustness.run(unsaid) == 0
    write_wav(noises / "hum.wav", signal(2.0, 6))
    with pytest.raises(ValueError, match=r"noise-file-0db: noise\.folder has other files than its features were made"):
        robustness.run(asked)


def test_who_babbles_is_no_setting_of_the_table() -> None:
    with pytest.raises(ValueError, match=r"noise\.babble_speakers: who is heard in noise-babble stands in"):
        RobustnessConfig(noise=NoiseSettings(babble_speakers=("1",)))


def write_wav(path: Path, waveform_T: np.ndarray) -> None:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE_HZ)
        file.writeframes((waveform_T * 32767).astype("<i2").tobytes())


@pytest.mark.slow
@pytest.mark.usefixtures("alone")
def test_ranks_that_torchrun_starts_make_the_table_that_one_process_makes(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tuned_run(corpus, tmp_path / "tuned")
    found = []
    for ranks in ("1", "2"):
        monkeypatch.setenv("RANKS", ranks)
        out = tmp_path / f"table-{ranks}"
        asked = RobustnessConfig(runs=(str(run),), conditions=(parse_joint(NOISE),), output_dir=str(out))
        assert robustness.run(asked) == 0
        found.append((out / "predictions.csv").read_bytes())
    assert found[0] == found[1]


@pytest.mark.usefixtures("alone")
def test_each_fold_is_tested_with_its_own_encoders(corpus: Path, tmp_path: Path) -> None:
    """The first fold's encoders made all rows: the test speakers of the others passed for clips that have nothing."""
    groups = tmp_path / "groups.yaml"
    groups.write_text("protocol:\n  kind: cyclic-groups\n  groups: [[23], [21], [1, 2]]\n")
    start = FusionConfig(
        corpus=str(corpus / "metadata.csv"),
        features_dir=str(corpus / "features"),
        protocol=str(groups),
        optim=Optim(epochs=1),
        output_dir=str(tmp_path / "start"),
    )
    train.run(start)
    leaves = [Path(f"fold-{number}", "seed-0") for number in (1, 2)]
    for leaf in leaves:
        optim = FinetuneOptim(epochs=1, batch_size=4, lr=1e-2)
        made = tuned_run(corpus, tmp_path / "made" / leaf, init=str(tmp_path / "start" / leaf), optim=optim)
        shutil.copytree(made, tmp_path / "tuned" / leaf)
    asked = RobustnessConfig(
        runs=(str(tmp_path / "tuned"),), modalities=(("audio", "video", "text"),), output_dir=str(tmp_path / "table")
    )
    assert robustness.run(asked) == 0
    found = read_predictions(tmp_path / "table" / "predictions.csv").select(condition="clean")
    for number, leaf in enumerate(leaves, start=1):
        written = read_predictions(tmp_path / "tuned" / leaf / "predictions.csv").select(split="test")
        again = found.select(fold=number, modalities="audio+video+text")
        assert again.clip_id.tolist() == written.clip_id.tolist()
        np.testing.assert_allclose(again.probabilities_NC, written.probabilities_NC, atol=1e-5)
    shutil.copytree(tmp_path / "tuned" / leaves[0], tmp_path / "tuned" / "fold-1" / "seed-1")
    with pytest.raises(ValueError, match="both test on speaker 23: of a fine-tuned run the table takes one seed"):
        robustness.run(replace(asked, output_dir=str(tmp_path / "other")))
