"""Fine-tuning on eight tiny clips with tiny random encoders; media are written straight into the store."""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch.utils.data import DataLoader
from transformers import AutoModel

from cache.conditions import UNCHANGED, parse_condition, parse_joint
from cache.features.store import FeatureStore
from cache.features.units import unit_size
from cache.files.lock import locked
from cache.media import SAMPLE_RATE_HZ, Media, MediaStore, Source
from configs.command.stop import StopRequest
from configs.loader import dump_config
from configs.schema.demo import RandomEncodersConfig
from configs.schema.features import FeaturesConfig
from configs.schema.finetune import FinetuneOptim, SpecAugment
from configs.schema.fusion import Augment, FusionConfig, Optim
from extract.corpora.synthetic.encoders import write_random_encoders
from extract.corrupt.apply import corrupt
from extract.encoders.catalogue import encoder_class
from extract.encoders.models import find_model
from extract.run.provenance import array_spec
from fuse import train
from fuse.finetune import __main__ as finetune
from fuse.finetune.inputs.batches import Batch, Collator, Loaders
from fuse.finetune.inputs.clips import ClipItem, MediaClips, at_speed, drawn_conditions, of_length
from fuse.finetune.inputs.media import OpenMedia
from fuse.finetune.load import clips_of, load, refuse_length
from fuse.finetune.network import EndToEndModel, encoder_dtype, freeze_unused, loss_of
from fuse.finetune.plan import FinetunePlan, plan_finetune
from fuse.finetune.rank import EVALUATED
from fuse.finetune.rank import finetune as run_rank
from fuse.finetune.training.loop import START, Training, evaluate
from fuse.finetune.training.rows import rows_of
from fuse.finetune.training.state import RESUME, Keeper, in_words, last_position
from fuse.finetune.training.stepper import Stepper, World
from fuse.model.fusion import FusionModel
from fuse.model.heads.base import Rows
from fuse.model.heads.catalogue import HEADS
from fuse.model.heads.reliable import FITTED
from fuse.runs.checkpoint import Checkpoint, read_checkpoint, read_stage_two, write_checkpoint
from fuse.runs.folder import STAGING
from fuse.scores.predictions import read_predictions
from fuse.stack.batches import StackBatch
from fuse.stack.stack import losses, targets
from tests.fuse.finetune.site import ALONE, CPU, NO_NEWS, config_of, encoders_of, media_of, signal, together
from tests.tiny.encoders import WRITERS
from tests.tiny.pickled import sent
from tests.tiny.stage_one import after_ctrl_c

FILES = {
    ".lock",
    "best_model.pth",
    "classification_report.txt",
    "config.yaml",
    "confusion_matrix.png",
    "export",
    "metrics.json",
    "predictions.csv",
    "training_curves.png",
}


def logits_of(plan: FinetunePlan, model: EndToEndModel, loaders: Loaders, part: str) -> np.ndarray:
    return evaluate(model, clips_of(plan, part), loaders, ALONE, NO_NEWS)


def learning(model: EndToEndModel) -> dict[str, set[str]]:
    """By modality, the names of the encoder's weights that learn."""
    return {
        name: {key for key, weight in network.named_parameters() if weight.requires_grad}
        for name, network in model.networks.items()
    }


@pytest.mark.usefixtures("alone")
def test_two_ranks_write_the_run_folder_and_the_checkpoint_gives_its_predictions_on_one(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RANKS", "2")
    out = tmp_path / "run"
    augment = Augment(audio=(parse_joint("noise-white-10db"),), video=(parse_joint("drop-frames-30"),))
    config = config_of(corpus, output_dir=str(out), augment=augment)
    assert finetune.run(config) == 0
    assert {path.name for path in out.iterdir()} == FILES
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["before"]["validation"]["clips"] == metrics["validation"]["clips"] == 2
    assert metrics["before"]["test"]["clips"] == metrics["test"]["clips"] == 2
    printed = capfd.readouterr().out
    assert f"before  validation UAR {metrics['before']['validation']['uar']:.3f} (2 clips)" in printed
    assert f"after   validation UAR {metrics['validation']['uar']:.3f} (2 clips)" in printed

    predictions = read_predictions(out / "predictions.csv")
    assert sorted(predictions.clip_id.tolist()) == ["clip-4", "clip-5", "clip-6", "clip-7"]
    assert set(predictions.modalities.tolist()) == {"audio+video+text"}
    checkpoint = read_checkpoint(out / "best_model.pth")
    started = read_stage_two(corpus / "fusion" / "best_model.pth")
    assert (checkpoint.fine_tuned, checkpoint.audio_seconds) == (True, 0.4)
    assert (checkpoint.features, checkpoint.fold) == (started.features, started.fold)
    plan = plan_finetune(config)
    model, loaders = load(plan, CPU)
    model.fusion.load_state_dict(checkpoint.state)
    for name, state in checkpoint.networks.items():
        model.networks[name].load_state_dict(state)
    for split in EVALUATED:
        probabilities_NC = torch.from_numpy(logits_of(plan, model, loaders, split)).double().softmax(1).numpy()
        written = predictions.select(split=split)
        assert written.clip_id.tolist() == [item.clip.clip_id for item in plan.parts[split]]
        np.testing.assert_allclose(written.probabilities_NC, probabilities_NC, atol=1e-5)
    with pytest.raises(ValueError, match="was fine-tuned with encoders of its own"):
        read_stage_two(out / "best_model.pth")
    assert_exported(out / "export", checkpoint, metrics)


def assert_exported(folder: Path, checkpoint: Checkpoint, metrics: dict[str, Any]) -> None:
    """Nothing of a fine-tuned run could be used outside of this project."""
    files = {path.name for path in folder.iterdir()}
    assert files == {"audio", "video", "text", "README.md", "head.json", "head.safetensors"}
    for name, weights in checkpoint.networks.items():
        loaded = AutoModel.from_pretrained(folder / name).state_dict()
        assert all(torch.equal(loaded[key], value) for key, value in weights.items())
        model = find_model(str(folder / name))
        assert model.random_weights
        assert model.tuned_on == ("1", "2", "21")
        preparer = encoder_class(name, model).preparer_class(model)
        signals = {"audio": np.ones(8000, np.float32), "video": np.zeros((16, 32, 32, 3), np.uint8), "text": "Kids"}
        encoder = encoder_class(name, model)(model, CPU)
        assert np.isfinite(encoder.encode_prepared(preparer.prepare([signals[name]]))).all()
    assert load_file(folder / "head.safetensors").keys() == checkpoint.state.keys()
    card = (folder / "README.md").read_text()
    for said in (
        f"| after | test | {metrics['test']['uar']:.3f} |",
        "`holdout`, fold 1",
        "on speakers 1, 2\n",
        "CC BY-NC",
    ):
        assert said in card


def test_features_of_a_tuned_encoder_are_not_tested_on_who_it_was_tuned_on(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its scores would be of speakers that it has heard, with their labels."""
    tuned = tmp_path / "audio"
    shutil.copytree(encoders_of(corpus).audio or "", tuned)
    (tuned / "tuned.json").write_text('{"speakers": ["2", "23"]}')
    config = FeaturesConfig(
        corpus=str(corpus / "metadata.csv"), encoders=replace(encoders_of(corpus), audio=str(tuned))
    )
    made = array_spec(config, "audio", find_model(str(tuned)), UNCHANGED.parts[0], {}, {}, "cpu").provenance
    assert made["tuned_on"] == ["2", "23"]
    stored = FeatureStore.provenance
    monkeypatch.setattr(FeatureStore, "provenance", lambda *asked: {**stored(*asked), "tuned_on": made["tuned_on"]})
    run = FusionConfig(
        corpus=str(corpus / "metadata.csv"),
        features_dir=str(corpus / "features"),
        protocol="holdout",
        output_dir=str(tmp_path / "run"),
    )
    with pytest.raises(ValueError, match=r"fold 1 would test on speakers that the audio encoder was .* \(23\); name a"):
        train.run(run)


def test_ctrl_c_keeps_what_was_trained_and_says_one_line_and_nothing_of_torchrun(corpus: Path, tmp_path: Path) -> None:
    """Once torchrun said two pages of where it was when the signal came, and nothing was kept."""
    out, optim = tmp_path / "run", FinetuneOptim(epochs=500, batch_size=2, lr=1e-3)
    (tmp_path / "finetune.yaml").write_text(dump_config(config_of(corpus, output_dir=str(out), optim=optim)))
    command = [sys.executable, "-m", "fuse.finetune", "--config", str(tmp_path / "finetune.yaml")]
    resume = out / STAGING / RESUME
    done = after_ctrl_c(command, lambda _: last_position(resume), {"RANKS": "2"})
    assert done.code == 130, done.output
    assert "Traceback" not in done.output
    assert "torch/distributed" not in done.output
    assert sum("interrupted" in line for line in done.output.splitlines()) == 1
    position = last_position(resume)
    assert position is not None
    assert f"interrupted: the same command continues at {in_words(position)}" in done.output
    assert Keeper(resume, 1).load() is not None


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("head", list(HEADS))
def test_before_the_first_step_it_predicts_what_stage_two_does(corpus: Path, tmp_path: Path, head: str) -> None:
    """Sound was cut or repeated always: the score "before" was of other clips than stage two's."""
    stage_two(corpus, tmp_path, head)
    plan = plan_finetune(config_of(corpus, init=str(tmp_path), audio_seconds=None))
    model, loaders = load(plan, CPU)
    predictions = read_predictions(tmp_path / "predictions.csv")
    for split in EVALUATED:
        probabilities_NC = torch.from_numpy(logits_of(plan, model, loaders, split)).double().softmax(1).numpy()
        cached = predictions.select(split=split)
        assert cached.clip_id.tolist() == [item.clip.clip_id for item in plan.parts[split]]
        np.testing.assert_allclose(probabilities_NC, cached.probabilities_NC, atol=1e-4)


@pytest.mark.usefixtures("alone")
def test_evaluation_does_not_depend_on_batches_or_loader_processes(corpus: Path) -> None:
    plan = plan_finetune(config_of(corpus))
    model, loaders = load(plan, CPU)
    everything = replace(plan, parts={"test": tuple(item for part in plan.parts.values() for item in part)})
    for seconds in (0.4, None):  # cut, or each of its own length
        config = replace(everything.config, audio_seconds=seconds)
        clips = replace(everything, config=config)
        one_by_one = logits_of(clips, model, replace(loaders, batch_size=1), "test")
        at_once = logits_of(clips, model, replace(loaders, batch_size=8, workers=1), "test")
        assert one_by_one.shape == (8, 2)
        np.testing.assert_allclose(at_once, one_by_one, atol=1e-4)


def test_loader_processes_are_sent_no_network(corpus: Path) -> None:
    """They were sent the encoders whole: each carried three networks to run a tokenizer and two normalisations."""
    plan = plan_finetune(config_of(corpus))
    _, loaders = load(plan, CPU)
    parcel = sent((clips_of(plan, "train"), loaders.collator))
    assert len(parcel) < 100_000
    clips, collator = pickle.loads(parcel)
    ours, theirs = loaders.collator([clips_of(plan, "train")[1]]), collator([clips[1]])
    for name in ours.inputs:
        inputs, same = together(ours, name), together(theirs, name)
        assert all(torch.equal(inputs[key], same[key]) for key in inputs)
        assert torch.equal(ours.present[name], theirs.present[name])


def test_a_unit_of_media_is_opened_once_by_each_process(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was opened, and the record beside it read, for each clip of each epoch."""
    opened, plain = [], h5py.File

    def counted(*args: Any, **settings: Any) -> h5py.File:
        opened.append(plain(*args, **settings))
        return opened[-1]

    monkeypatch.setattr(h5py, "File", counted)
    clips = clips_of(plan_finetune(config_of(corpus)), "train")
    for _ in range(2):
        sound = [clips[index].by_modality["audio"] for index in range(len(clips))]
    assert len(opened) == 1
    # A loader process that is forked now does not read through the file that this one has open.
    workers = DataLoader(clips, 1, num_workers=1, collate_fn=lambda one: (os.getpid(), one[0].by_modality["audio"]))
    pids, heard = zip(*workers, strict=True)
    assert os.getpid() not in pids
    for ours, theirs in zip(sound, heard, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert [bool(file) for file in opened] == [True]
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(clips))[0].by_modality["audio"], sound[0])
    clips.close()
    assert not opened[0]
    np.testing.assert_array_equal(clips[0].by_modality["audio"], sound[0])
    clips.close()


def test_only_so_many_units_stay_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = MediaStore(tmp_path, {"frames": 16, "size": 32})
    monkeypatch.setattr("fuse.finetune.inputs.media.UNITS_OPEN", 2)
    for unit in range(4):
        store.write_unit(unit, iter([(Media(np.full(3, unit, np.float32), None), Source("", 0, 0, 0, 0))]))
    media = OpenMedia(store, 10_000)
    for unit in (0, 1, 2, 3, 0, 3):
        waveform_T = media.read(unit * unit_size(10_000), "audio").waveform_T
        assert waveform_T is not None
        assert waveform_T.tolist() == [unit] * 3
        assert len(media._open) <= 2
    assert list(media._open) == [3, 0]
    media.close()


def test_the_schedule_waits_while_the_scaler_leaves_steps_out(corpus: Path, alone: World) -> None:
    """On a V100 the first steps overflow and are left out; each of them lowered the learning rate all the same."""
    plan = plan_finetune(config_of(corpus, unfreeze=1))
    model, loaders = load(plan, alone.device)
    (batch, *_) = loaders.over(clips_of(plan, "train"))
    stepper = Stepper(model, FinetuneOptim(lr=1e-3), 10, alone)
    # The scaler of GPUs on a CPU; a scaled loss of more than float32 holds makes gradients that are not finite.
    stepper.scaler = torch.amp.grad_scaler.GradScaler("cpu", init_scale=3e38)
    rates, changes = [], []
    for _ in range(3):
        first = [weight.detach().clone() for weight in model.fusion.weights.values()]
        stepper.step([batch], batch.clips)
        rates.append(stepper.schedule.get_last_lr()[0])
        last = model.fusion.weights.values()
        changes.append(any(not torch.equal(one, other) for one, other in zip(first, last, strict=True)))
        stepper.scaler.update(3e38 if len(rates) < 2 else 1.0)
    assert changes == [False, False, True]
    assert rates[0] == rates[1] == 1e-3
    assert rates[2] < 1e-3


def test_float16_takes_a_scaler_and_learns_as_float32_does(corpus: Path, alone: World) -> None:
    """The path of GPUs without bfloat16, on a CPU. Here too the first steps overflow and are left out."""
    moved = []
    for dtype in (torch.float32, torch.float16):
        plan = plan_finetune(config_of(corpus, unfreeze=1))
        model, loaders = load(plan, alone.device)
        model.dtype = dtype
        (batch, *_) = loaders.over(clips_of(plan, "train"))
        stepper = Stepper(model, FinetuneOptim(lr=1e-3, weight_decay=0), 10, alone)
        assert stepper.scaler.is_enabled() is (dtype == torch.float16)
        # So high that the first steps overflow, whatever the head.
        stepper.scaler = torch.amp.grad_scaler.GradScaler("cpu", 2.0**40, enabled=dtype == torch.float16)
        first, steps = [weight.detach().clone() for weight in model.parameters()], 0
        while stepper.schedule.get_last_lr()[0] == 1e-3 and steps < 60:
            assert np.isfinite(stepper.step([batch], batch.clips))
            steps += 1
        assert (steps > 1) is (dtype == torch.float16)
        # AdamW's first step goes by the sign of the gradient.
        signs = [(one - other).sign().flatten() for one, other in zip(model.parameters(), first, strict=True)]
        moved.append(torch.cat(signs))
    assert moved[0].any()
    assert (moved[0] == moved[1])[moved[0] != 0].double().mean() > 0.9


def test_the_scale_of_float16_goes_on_where_it_stopped(corpus: Path, alone: World) -> None:
    """Begun anew, it would leave out steps that training had behind it."""
    plan = plan_finetune(config_of(corpus, unfreeze=1))

    def halved() -> tuple[EndToEndModel, Stepper, Batch]:
        model, loaders = load(plan, alone.device)
        model.dtype = torch.float16
        (batch, *_) = loaders.over(clips_of(plan, "train"))
        stepper = Stepper(model, FinetuneOptim(lr=1e-3), 10, alone)
        stepper.scaler = torch.amp.grad_scaler.GradScaler("cpu", 2.0**40)
        return model, stepper, batch

    model, stepper, batch = halved()
    for _ in range(40):
        stepper.step([batch], batch.clips)
    file = io.BytesIO()
    torch.save({"model": model.state_dict(), "stepper": stepper.state()}, file)
    file.seek(0)
    kept = torch.load(file, weights_only=True)
    again, other, _ = halved()
    again.load_state_dict(kept["model"])
    other.restore(**kept["stepper"])
    assert 1 < other.scaler.get_scale() == stepper.scaler.get_scale() < 2.0**40
    for one in (stepper, other):
        torch.manual_seed(0)
        one.step([batch], batch.clips)
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, again.state_dict()[name]), name


def test_training_changes_encoders_and_head_and_repeats_itself(corpus: Path, alone: World) -> None:
    def once() -> tuple[Any, dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        optim = FinetuneOptim(epochs=2, batch_size=2, lr=1e-3)
        augment = Augment(audio=(parse_joint("noise-white-0db"),), video=(parse_joint("drop-frames-30"),))
        plan = plan_finetune(config_of(corpus, optim=optim, augment=augment))
        model, loaders = load(plan, CPU)
        first = {name: value.clone() for name, value in model.state_dict().items()}
        # A start that gets everything wrong, so that some epoch is better.
        validation = clips_of(plan, "validation")
        start = -10 * np.eye(8, dtype=np.float32)[validation.labels]
        training = Training(model, clips_of(plan, "train"), validation, loaders, optim, alone, NO_NEWS)
        history, _ = training.run([start, start])
        return history, first, model.state_dict()

    history, first, last = once()
    assert history.best_epoch != START
    assert len(history.train_loss) == len(history.validation_uar) == 2
    changed = {name.split(".")[1] for name in first if not torch.equal(first[name], last[name])}
    assert changed == {"audio", "video", "text", "weights"}
    again, _, same = once()
    assert again == history
    assert all(torch.equal(last[name], same[name]) for name in last)


def test_the_start_is_kept_where_no_epoch_is_better(corpus: Path, alone: World) -> None:
    plan = plan_finetune(config_of(corpus))
    model, loaders = load(plan, CPU)
    first = {name: value.clone() for name, value in model.state_dict().items()}
    validation = clips_of(plan, "validation")
    start = 1000 * np.eye(8, dtype=np.float32)[validation.labels]
    training = Training(model, clips_of(plan, "train"), validation, loaders, plan.config.optim, alone, NO_NEWS)
    history, logits_NC = training.run([start, start])
    assert history.best_epoch == START
    assert logits_NC is start
    assert all(torch.equal(first[name], value) for name, value in model.state_dict().items())


def test_a_diverging_run_says_what_to_lower(corpus: Path, alone: World) -> None:
    plan = plan_finetune(config_of(corpus))
    model, loaders = load(plan, CPU)
    with torch.no_grad():
        next(model.networks["video"].parameters()).fill_(torch.inf)
    start = np.zeros((2, 8), np.float32)
    validation = clips_of(plan, "validation")
    training = Training(model, clips_of(plan, "train"), validation, loaders, plan.config.optim, alone, NO_NEWS)
    with pytest.raises(ValueError, match=r"diverged in epoch 1 .* lower optim\.lr"):
        training.run([start, start])


def test_unfreeze_decides_what_learns_and_unused_weights_never_do(corpus: Path) -> None:
    def of(how: int | str) -> dict[str, set[str]]:
        return learning(load(plan_finetune(config_of(corpus, unfreeze=how)), CPU)[0])

    assert of("none") == of(0) == {"audio": set(), "video": set(), "text": set()}
    last = of(1)
    assert all(name.startswith("encoder.layers.1.") for name in last["audio"])
    assert all(name.startswith("encoder.layer.1.") for name in last["video"] | last["text"])
    assert min(map(len, last.values())) > 10
    everything = of("all")
    assert all(last[name] < of(2)[name] < everything[name] for name in last)
    unused = {"masked_spec_embed", "pooler.dense.weight", "pooler.dense.bias"}
    assert not unused & (everything["audio"] | everything["text"])


def test_blocks_past_the_last_layer_in_use_are_frozen(corpus: Path) -> None:
    plan = plan_finetune(config_of(corpus))
    model, loaders = load(replace(plan, config=replace(plan.config, layers=1)), CPU)
    for modality, block in (("audio", "encoder.layers"), ("video", "encoder.layer"), ("text", "encoder.layer")):
        assert any(name.startswith(f"{block}.0.") for name in learning(model)[modality])
        assert not any(name.startswith(f"{block}.1.") for name in learning(model)[modality])
    stand_in = loaders.collator.stand_in()
    assert freeze_unused(model, stand_in.inputs, stand_in.present) == []


def with_head(plan: FinetunePlan, head: str) -> FinetunePlan:
    """The plan as it would be if the run it starts from had this head, untrained."""
    settings = replace(plan.start.fusion.settings, head=head)
    return replace(plan, start=replace(plan.start, fusion=FusionModel(settings)))


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("head", list(HEADS))
def test_one_step_changes_the_unfrozen_blocks_of_every_encoder(corpus: Path, head: str) -> None:
    """`late-learned` detaches its branches from its decision: from such a run only the joining layer learned."""
    plan = with_head(plan_finetune(config_of(corpus, unfreeze=1)), head)
    model, loaders = load(plan, CPU)
    (batch, *_) = loaders.over(clips_of(plan, "train"))
    first = {name: value.clone() for name, value in model.state_dict().items()}
    # Decay changes weights that no gradient reaches.
    stepper = Stepper(model, FinetuneOptim(lr=1e-2, weight_decay=0), 10, ALONE)
    stepper.parallel.train()  # type: ignore[no-untyped-call]
    stepper.step([batch], batch.clips)
    changed = {name for name, value in model.state_dict().items() if not torch.equal(first[name], value)}
    for modality in ("audio", "video", "text"):
        own = {name for name in changed if name.startswith(f"networks.{modality}.")}
        assert own
        assert all(".1." in name for name in own)
    learned = {name for name, weight in model.named_parameters() if name.startswith("fusion.") and weight.requires_grad}
    assert learned == {f"fusion.weights.{name}" for name in model.fusion.weights if FITTED not in name}
    assert learned <= changed


def stage_two(corpus: Path, out: Path, head: str) -> None:
    """Of two sentences that never vary, a discriminant knows the label for certain, and has no temperature."""
    run = FusionConfig(
        corpus=str(corpus / "metadata.csv"),
        features_dir=str(corpus / "features"),
        protocol="holdout",
        head=head,
        hidden=16,
        modalities=("audio", "video", "text") if HEADS[head].reliable is None else ("audio", "video"),
        layers={"audio": "mean" if HEADS[head].solve else "mix", "video": (1, 2), "text": "last"},
        optim=Optim(epochs=2, lr=1e-2),
        output_dir=str(out),
    )
    train.run(run)


@pytest.mark.usefixtures("alone")
def test_what_late_fusion_fits_to_rows_is_fitted_to_those_of_the_tuned_encoders(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A start from such a run was refused: its distances and temperatures were those of other features."""
    stage_two(corpus, tmp_path / "fusion", "late-reliable")
    monkeypatch.setattr("fuse.finetune.training.loop._better", lambda *_: True)
    augment = Augment(audio=(parse_joint("noise-white-0db"),), probability=0.5)
    config = config_of(
        corpus,
        init=str(tmp_path / "fusion"),
        optim=FinetuneOptim(epochs=2, batch_size=2, lr=1e-2, encoder_lr_scale=1.0),
        augment=augment,
        export=False,
        output_dir=str(tmp_path / "tuned"),
    )
    plan = plan_finetune(config)
    model, loaders = load(plan, CPU)
    run_rank(plan, model, loaders, ALONE, StopRequest())
    started, tuned = (
        read_checkpoint(path / "best_model.pth") for path in (tmp_path / "fusion", tmp_path / "tuned" / STAGING)
    )
    plain = plan_finetune(replace(config, augment=Augment()))
    noisy = plan_finetune(replace(config, augment=Augment(), condition=parse_joint("noise-white-0db")))
    for name in model.encoders:
        assert not torch.equal(tuned.state[f"weights.{name}_fitted_mean"], started.state[f"weights.{name}_fitted_mean"])
    video_D, *heard = (
        standardised_mean(model, rows_of(model, loaders, training_clips_as_they_are(one), ALONE), name)
        for one, name in ((plain, "video"), (plain, "audio"), (noisy, "audio"))
    )
    torch.testing.assert_close(tuned.state["weights.video_fitted_mean"], video_D, rtol=1e-4, atol=1e-5)
    heard_D = (heard[0] + heard[1]) / 2
    torch.testing.assert_close(tuned.state["weights.audio_fitted_mean"], heard_D, rtol=1e-4, atol=1e-5)
    # What is written is said with them.
    written = read_predictions(tmp_path / "tuned" / STAGING / "predictions.csv").select(split="test")
    probabilities_NC = torch.from_numpy(logits_of(plan, model, loaders, "test")).double().softmax(1).numpy()
    np.testing.assert_allclose(written.probabilities_NC, probabilities_NC, atol=1e-5)


def training_clips_as_they_are(plan: FinetunePlan) -> MediaClips:
    """Cut from the centre, as those that are scored."""
    return clips_of(replace(plan, parts={"test": plan.parts["train"]}), "test")


def standardised_mean(model: EndToEndModel, rows: dict[str, np.ndarray], name: str) -> torch.Tensor:
    standardiser = model.fusion.standardiser
    rows_ND = (torch.from_numpy(rows[name]) - standardiser.mean_[name]) / standardiser.scale_[name]
    mean_D: torch.Tensor = rows_ND[torch.isfinite(rows_ND).all(1)].mean(0)
    return mean_D


def test_the_loss_is_that_of_stage_two_for_every_head(corpus: Path) -> None:
    """The decision's own cross-entropy where it learns; in late fusion that of each modality's logits beside it."""
    plan = plan_finetune(config_of(corpus))
    for head in HEADS:
        model, loaders = load(with_head(plan, head), CPU)
        (batch, *_) = loaders.over(clips_of(plan, "train"))
        answers = model.eval()(batch.inputs, batch.present)
        stacked = StackBatch(Rows(torch.empty(0)), batch.labels_B[None], torch.ones(1, len(batch.labels_B)))
        expected = losses(
            answers.taught_BKC[None], stacked, targets(torch.tensor([0.1]), answers.logits_BC.shape[1])
        ).mean()
        torch.testing.assert_close(loss_of(answers.taught_BKC, batch.labels_B, 0.1), expected)
        if not head.startswith("late"):
            plain = torch.nn.functional.cross_entropy(answers.logits_BC, batch.labels_B, label_smoothing=0.1)
            assert torch.equal(loss_of(answers.taught_BKC, batch.labels_B, 0.1), plain)


def test_a_fine_tune_in_which_an_encoder_would_learn_nothing_is_refused(corpus: Path) -> None:
    """It ran to its end, and the scores were those of the head alone."""
    plan = plan_finetune(config_of(corpus))

    def load_with(unfreeze: Any, **layers: Any) -> EndToEndModel:
        every = {"audio": 2, "video": 2, "text": 2, **layers}
        return load(replace(plan, config=replace(plan.config, layers=every, unfreeze=unfreeze)), CPU)[0]

    message = (
        r"unfreeze=1: nothing of the video encoder would learn, because the run uses no layer of it "
        r"after layer 1 of 2; set unfreeze=2 or more, unfreeze=all, or unfreeze=none to train the head alone"
    )
    with pytest.raises(ValueError, match=message):
        load_with(1, video=1)
    with pytest.raises(ValueError, match=r"text encoder .* after layer 0 of 2; set unfreeze=all, or unfreeze=none"):
        load_with(2, text=0)
    for unfreeze in (2, "all"):
        assert all(learning(load_with(unfreeze, video=1)).values())
    assert not any(learning(load_with("none", video=1)).values())
    with pytest.raises(ValueError, match=r"optim\.encoder_lr_scale=0 and unfreeze=all: no encoder would learn"):
        config_of(corpus, optim=FinetuneOptim(encoder_lr_scale=0))
    config_of(corpus, optim=FinetuneOptim(encoder_lr_scale=0), unfreeze="none")


def test_frozen_blocks_keep_dropout_off_and_masking_is_off_everywhere(corpus: Path) -> None:
    model, _ = load(plan_finetune(config_of(corpus, unfreeze=1)), CPU)
    model.train()
    text, audio = model.encoders["text"].network, model.encoders["audio"].network
    assert not text.embeddings.training
    assert not text.encoder.layer[0].training
    assert text.encoder.layer[1].training
    assert audio.config.apply_spec_augment is False
    assert audio.config.layerdrop == 0


@pytest.mark.parametrize("unfreeze", ["all", 1])
def test_gradient_checkpointing_changes_neither_loss_nor_gradients(corpus: Path, unfreeze: int | str) -> None:
    losses, gradients = [], []
    for checkpointing in (False, True):
        plan = plan_finetune(config_of(corpus, unfreeze=unfreeze, gradient_checkpointing=checkpointing))
        model, loaders = load(plan, CPU)
        (batch, *_) = loaders.over(clips_of(plan, "train"))
        model.train()
        torch.manual_seed(0)
        loss = torch.nn.functional.cross_entropy(model(batch.inputs, batch.present).logits_BC, batch.labels_B)
        loss.backward()  # type: ignore[no-untyped-call]
        losses.append(loss.item())
        gradients.append({name: one.grad for name, one in model.named_parameters() if one.grad is not None})
    assert losses[0] == losses[1]
    assert gradients[0].keys() == gradients[1].keys()
    for name, values in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], values, rtol=1e-4, atol=1e-7)


def test_absent_modalities_pass_no_gradient_and_break_nothing(corpus: Path) -> None:
    plan = plan_finetune(config_of(corpus))
    model, loaders = load(plan, CPU)
    clips = clips_of(plan, "train")
    # clip-1 has no sound, clip-2 no text: alone in a batch, their stand-ins must teach nothing.
    for index, silent in ((1, "audio"), (2, "text")):
        batch = loaders.collator([clips[index]])
        assert batch.present[silent].tolist() == [False]
        model.zero_grad()
        model(batch.inputs, batch.present).taught_BKC.sum().backward()
        for name, network in model.networks.items():
            sizes = [one.grad.abs().max().item() for one in network.parameters() if one.grad is not None]
            assert np.isfinite(sizes).all()
            assert (max(sizes) == 0) == (name == silent)


def test_what_is_drawn_follows_from_seed_epoch_and_clip_alone(corpus: Path) -> None:
    plan = plan_finetune(config_of(corpus, audio_seconds=0.2))
    augment = Augment(
        audio=(parse_joint("noise-white-10db"), parse_joint("noise-white-0db")),
        video=(parse_joint("drop-frames-30"),),
        probability=0.5,
    )

    def clips(seed: int, epoch: int, items: tuple[ClipItem, ...] = plan.parts["train"]) -> list[Any]:
        own = MediaClips(items, plan.media, plan.stored, samples=plan.samples, augment=augment, seed=seed)
        own.set_epoch(epoch)
        return [own[index].by_modality for index in range(len(own))]

    first = clips(0, 0)
    backwards = clips(0, 0, plan.parts["train"][::-1])[::-1]
    for one, other in zip(first, backwards, strict=True):
        np.testing.assert_array_equal(one["video"], other["video"])
        np.testing.assert_array_equal(one["audio"], other["audio"])
    assert first[0]["audio"].shape == (3200,)
    for seed, epoch in ((0, 1), (1, 0)):
        assert not np.array_equal(clips(seed, epoch)[0]["audio"], first[0]["audio"])


def test_sound_is_played_at_one_of_the_speeds_and_what_else_is_drawn_stays(corpus: Path) -> None:
    """A tone at 1.25 times the speed is four fifths as long and 1.25 times as high."""
    plan = plan_finetune(config_of(corpus, audio_seconds=None, spec_augment=SpecAugment(), speeds=(0.8, 1.0, 1.25)))
    assert clips_of(plan, "train").speeds == (0.8, 1.0, 1.25)
    played, plain = clips_of(plan, "train"), clips_of(replace(plan, config=replace(plan.config, speeds=())), "train")
    lengths = set()
    for epoch in range(12):
        played.set_epoch(epoch)
        plain.set_epoch(epoch)
        assert played[0].mask_seed == plain[0].mask_seed
        lengths.add(len(played[0].by_modality["audio"]) / len(plain[0].by_modality["audio"]))
    assert sorted(lengths) == pytest.approx([0.8, 1.0, 1.25])
    assert played[1].by_modality["audio"] is None
    tested = clips_of(plan, "test")[0].by_modality["audio"]
    np.testing.assert_array_equal(tested, media_of(6).waveform_T)

    time = np.arange(SAMPLE_RATE_HZ) / SAMPLE_RATE_HZ
    tone = np.sin(2 * np.pi * 200 * time).astype(np.float32)
    higher = at_speed(tone, 1.25)
    assert len(higher) == len(tone) * 4 // 5
    np.testing.assert_allclose(higher[500:-500], np.sin(2 * np.pi * 250 * time)[500 : len(higher) - 500], atol=2e-3)


def test_augmentation_is_stage_ones_corruption_on_half_the_clips_and_spares_silence() -> None:
    augment = Augment(
        audio=(parse_joint("noise-white-10db"), parse_joint("noise-white-0db")),
        video=(parse_joint("drop-frames-30"),),
        probability=0.5,
    )
    media = media_of(0)
    draws = [drawn_conditions(augment, media, np.random.default_rng(seed)) for seed in range(400)]
    for signal_, share in (("audio", 0.5), ("video", 0.5)):
        assert abs(sum(signal_ in draw for draw in draws) / 400 - share) < 0.1
    names = [draw["audio"].name for draw in draws if "audio" in draw]
    assert 0.35 < names.count("noise-white-0db") / len(names) < 0.65
    assert len({draw["video"].seed for draw in draws if "video" in draw}) > 150
    dropped = next(draw["video"] for draw in draws if "video" in draw)
    shown = corrupt(media, dropped, "clip-0").frames_THWC
    assert media.frames_THWC is not None
    assert shown is not None
    kept = {frame.tobytes() for frame in shown}
    assert len(kept) == 16 - round(0.3 * 16)
    silence = Media(np.zeros(1600, np.float32), None)
    always = replace(augment, probability=1.0)
    assert "audio" not in drawn_conditions(always, silence, np.random.default_rng(0))


def test_evaluation_cuts_from_the_centre_and_adds_nothing(corpus: Path) -> None:
    plan = plan_finetune(
        config_of(corpus, audio_seconds=0.2, augment=Augment(audio=(parse_joint("noise-white-0db"),), probability=1.0))
    )
    waveform_T = media_of(6).waveform_T
    assert waveform_T is not None
    start = (len(waveform_T) - 3200) // 2
    np.testing.assert_array_equal(clips_of(plan, "test")[0].by_modality["audio"], waveform_T[start : start + 3200])


def test_a_condition_is_put_on_every_clip_and_gives_way_to_what_is_drawn(corpus: Path) -> None:
    plan = plan_finetune(config_of(corpus, audio_seconds=len(signal(0.6, 6)) / SAMPLE_RATE_HZ))
    names = ("noise-white-10db", "noise-white-0db")
    noisy = MediaClips(
        plan.parts["test"], plan.media, plan.stored, condition=parse_joint(names[0]), samples=plan.samples
    )
    heard = noisy[0].by_modality["audio"]
    np.testing.assert_array_equal(heard, corrupt(media_of(6), parse_condition(names[0]), "clip-6").waveform_T)
    noisy.augment = Augment(audio=(parse_joint(names[1]),), probability=1.0)
    louder = noisy[0].by_modality["audio"] - media_of(6).waveform_T
    assert np.std(louder) > 2 * np.std(heard - media_of(6).waveform_T)


@given(length=st.integers(1, 60), samples=st.integers(1, 60), share=st.floats(0, 1))
def test_sound_is_cut_or_repeated_to_length(length: int, samples: int, share: float) -> None:
    waveform_T = np.arange(length, dtype=np.float32)
    cut = of_length(waveform_T, samples, share)
    assert cut.shape == (samples,)
    assert cut.dtype == np.float32
    np.testing.assert_array_equal(cut, (cut[0] + np.arange(samples)) % length)
    if length >= samples:
        assert cut[-1] - cut[0] == samples - 1
    else:
        assert cut[0] == 0


def test_keys_that_contradict_the_run_are_refused(corpus: Path) -> None:
    for changed, message in (
        ({"modalities": ("audio",)}, r"modalities=audio contradicts .*audio\+video\+text"),
        ({"protocol": "luna5"}, "protocol=luna5 contradicts .*holdout"),
        ({"layers": 1}, "layers=1 contradicts .*mean"),
        ({"head": "linear"}, "head=linear contradicts .*mlp"),
        ({"standardise": "none"}, "standardise=none contradicts .*train"),
        ({"encoders": replace(encoders_of(corpus), video=None)}, "encoders.video is null"),
        ({"precision": "float16"}, "precision=float16 needs a GPU"),
        ({"init": str(corpus / "nowhere")}, "no run in"),
        ({"features_dir": str(corpus / "nowhere")}, "no feature store"),
    ):
        with pytest.raises(ValueError, match=message):
            plan_finetune(config_of(corpus, **changed))
    config = plan_finetune(config_of(corpus, modalities=("text", "video", "audio"), seeds=(5,))).config
    assert (config.modalities, config.layers, config.seeds) == (("audio", "video", "text"), "mean", (5,))
    with pytest.raises(ValueError, match="a fine-tune has one seed, got 2"):
        config_of(corpus, seeds=(0, 1))


def test_a_second_fine_tune_in_the_same_folder_is_refused_in_one_line(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both wrote what they would go on with into one folder, and removed each other's."""
    monkeypatch.setattr("fuse.finetune.launch.patience", lambda _: 0.0)
    monkeypatch.setattr("fuse.finetune.launch._launch", lambda *_: pytest.fail("its ranks were started"))
    out = tmp_path / "run"
    with locked(out), pytest.raises(ValueError, match=r"another run \(process \d+\) is .* set another output_dir$"):
        finetune.run(config_of(corpus, output_dir=str(out)))
    assert [path.name for path in out.iterdir()] == [".lock"]


def test_labels_go_by_the_names_of_the_run(corpus: Path, tmp_path: Path) -> None:
    """A run whose labels were renamed could not be continued: the corpus had others than it."""
    named = tmp_path / "named"
    shutil.copytree(corpus / "fusion", named)
    text = (named / "config.yaml").read_text()
    (named / "config.yaml").write_text(text.replace("labels: {}", "labels: {Happy: happy}"))
    plan = plan_finetune(config_of(corpus, init=str(named)))
    assert plan.config.labels == {"Happy": "happy"}
    assert plan.label_names == ("happy", "sad")
    with pytest.raises(ValueError, match=r"labels of this corpus are not those of the run .*new: glad"):
        plan_finetune(config_of(corpus, labels={"happy": "glad"}))


def test_one_of_several_runs_has_to_be_named(corpus: Path, tmp_path: Path) -> None:
    for seed in (0, 1):
        shutil.copytree(corpus / "fusion", tmp_path / f"fold-1/seed-{seed}")
    with pytest.raises(ValueError, match=r"holds 2 runs; name the one to continue, e\.g\. init=.*fold-1/seed-0"):
        plan_finetune(config_of(corpus, init=str(tmp_path)))
    out = tmp_path / "fold-1/seed-1"
    with pytest.raises(ValueError, match="is the run it starts from; set another output_dir"):
        finetune.run(config_of(corpus, init=str(out), output_dir=str(out)))
    with pytest.raises(ValueError, match="holds runs of stage two"):
        finetune.run(config_of(corpus, init=str(out), output_dir=str(tmp_path)))
    assert (out / "metrics.json").exists()


def test_missing_media_and_other_weights_name_the_way_out(corpus: Path, tmp_path: Path) -> None:
    features = shutil.copytree(corpus / "features", tmp_path / "features")
    media = MediaStore(features, {"frames": 16, "size": 32})
    media.forget_unit(0)
    with pytest.raises(ValueError, match=r"lacks 1 of 1 units .*; run: make features .*restore_media=true"):
        plan_finetune(config_of(corpus, features_dir=str(features)))
    others = write_random_encoders(
        RandomEncodersConfig(out=str(tmp_path / "other"), width=16, blocks=2, size=32, seed=1)
    )
    encoders = replace(encoders_of(corpus), audio=str(others["audio"]))
    with pytest.raises(ValueError, match=r"encoders\.audio=.* has other weights than the features"):
        plan_finetune(config_of(corpus, encoders=encoders))


def test_an_encoder_is_run_as_it_was_for_the_features(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Features of `whisper.window=clip` were refused."""
    stored = FeatureStore.provenance
    monkeypatch.setattr(FeatureStore, "provenance", lambda *asked: {**stored(*asked), "window": "clip"})
    init = read_stage_two(corpus / "fusion" / "best_model.pth")
    monkeypatch.setattr(type(init), "refuse_other_features", lambda *_: None)
    assert plan_finetune(config_of(corpus)).options["audio"].window == "clip"


def test_a_run_on_features_of_other_weights_is_not_continued(corpus: Path, tmp_path: Path) -> None:
    """Only the encoder and the store were compared: a head trained on another encoder's features went unnoticed."""
    init = shutil.copytree(corpus / "fusion", tmp_path / "fusion")
    kept = read_stage_two(init / "best_model.pth")
    audio = {**kept.features["audio"], "weights_sha256": "b" * 64}
    write_checkpoint(replace(kept, features={**kept.features, "audio": audio}), init / "best_model.pth")
    with pytest.raises(ValueError, match=r"its audio features .* \(weights_sha256 \w{12}, not bbbbbbbbbbbb\)"):
        plan_finetune(config_of(corpus, init=str(init)))


def test_an_encoder_that_cannot_take_the_length_says_so(corpus: Path) -> None:
    with pytest.raises(ValueError, match=r"audio_seconds=0\.01: 160 samples of sound; the encoder needs 400"):
        load(plan_finetune(config_of(corpus, audio_seconds=0.01)), CPU)


def test_an_encoder_that_would_need_windows_for_the_length_says_so(tmp_path: Path) -> None:
    """Whisper's own extractor cuts what is too long, without a word."""
    model = find_model(str(WRITERS["whisper"][1](tmp_path / "whisper")))
    preparer = encoder_class("audio", model).preparer_class(model)
    refuse_length(preparer, 48_000)
    with pytest.raises(ValueError, match=r"audio_seconds=3\.5: whisper takes 3 s of sound at a time, and fine-tuning"):
        refuse_length(preparer, 56_000)


def test_features_in_windows_are_not_continued(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stored, windows = FeatureStore.provenance, {"seconds": 0.5, "hop_seconds": 0.5}
    monkeypatch.setattr(FeatureStore, "provenance", lambda *asked: {**stored(*asked), "windows": windows})
    with pytest.raises(ValueError, match=r"made with window_seconds=0\.5; fine-tuning knows no windows; run: .*=null"):
        plan_finetune(config_of(corpus))


def test_precision_follows_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = torch.device("cuda")
    assert encoder_dtype("auto", CPU) == torch.float32
    for has, dtype in ((True, torch.bfloat16), (False, torch.float16)):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda has=has, **_: has)
        assert encoder_dtype("auto", gpu) == dtype
    with pytest.raises(ValueError, match="this GPU does not have it"):
        encoder_dtype("bfloat16", gpu)


def test_bfloat16_stays_close_to_float32(corpus: Path) -> None:
    logits = []
    for precision in ("float32", "bfloat16"):
        plan = plan_finetune(config_of(corpus, precision=precision))
        model, loaders = load(plan, CPU)
        rows = [model.row(name, loaders.collator.stand_in().inputs[name]) for name in model.encoders]
        assert all(row.dtype == torch.float32 for row in rows)
        logits.append(torch.cat(rows, 1))
    assert not torch.equal(*logits)
    torch.testing.assert_close(*logits, rtol=0.1, atol=0.1)


def test_a_whisper_encoder_pools_over_its_own_frames(tmp_path: Path) -> None:
    from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperModel

    from extract.encoders.audio import WhisperEncoder
    from extract.encoders.models import find_model

    sizes = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2}
    sizes |= {"decoder_attention_heads": 2, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "vocab_size": 8}
    tokens = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}
    WhisperModel(WhisperConfig(**sizes, **tokens)).save_pretrained(tmp_path / "whisper")
    WhisperFeatureExtractor().save_pretrained(tmp_path / "whisper")
    encoder = WhisperEncoder(find_model(str(tmp_path / "whisper")), CPU)
    waveforms = [signal(0.5, 0), signal(0.3, 1)]
    inputs = encoder.preparer.inputs(waveforms)
    assert inputs["own_B"].tolist() == [25, 15]
    encoder.network.requires_grad_(True)
    hidden_BLD = encoder.hidden(inputs)
    assert hidden_BLD.requires_grad
    states = encoder.network(inputs["input_features"], output_hidden_states=True).hidden_states
    torch.testing.assert_close(hidden_BLD[1, 0], states[0][1, :15].mean(0))
    torch.testing.assert_close(encoder.hidden(inputs, slice(1, 2))[0, 0], states[1][0, :25].mean(0))


def test_a_collator_of_one_modality_needs_no_media(corpus: Path) -> None:
    plan = plan_finetune(config_of(corpus))
    _, loaders = load(plan, CPU)
    text = {"text": loaders.collator.preparers["text"]}
    items = [replace(item, present=item.present & {"text"}) for item in plan.parts["train"]]
    clips = MediaClips(items, None, 0, samples=1)
    batch = Collator(text, 1, 0, 0)([clips[0], clips[2]])
    assert batch.present["text"].tolist() == [True, False]
    assert together(batch, "text")["attention_mask"].sum(1).tolist()[1] == 2
