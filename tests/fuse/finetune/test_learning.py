"""What learns, and how fast: blocks, norms, adapters, rates, the average of weights; and what is hidden in training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModel

from configs.schema.finetune import FinetuneOptim, Lora, SpecAugment
from extract.encoders.preparer import OWN
from fuse.finetune.inputs.batches import hide_spans
from fuse.finetune.inputs.clips import MediaClips, withheld_modalities
from fuse.finetune.load import clips_of, load
from fuse.finetune.network import EndToEndModel
from fuse.finetune.plan import plan_finetune
from fuse.finetune.training.loop import Training
from fuse.finetune.training.stepper import Stepper, groups_of, put_back, rate, weights_that_learn
from tests.fuse.finetune.site import ALONE, CPU, NO_NEWS, config_of, encoders_of, together

FRONT_END = "feature_extractor."


def model_of(corpus: Path, **changed: Any) -> EndToEndModel:
    return load(plan_finetune(config_of(corpus, **changed)), CPU)[0]


def learning(model: EndToEndModel) -> dict[str, set[str]]:
    return {
        name: {key for key, weight in network.named_parameters() if weight.requires_grad}
        for name, network in model.networks.items()
    }


def test_the_convolutional_front_end_learns_only_when_it_is_asked_to(corpus: Path) -> None:
    """`unfreeze=all` trained it: a few hundred clips are no ground to learn to hear on."""
    for unfreeze in ("all", "norms", 2):
        assert not any(name.startswith(FRONT_END) for name in learning(model_of(corpus, unfreeze=unfreeze))["audio"])
    asked = learning(model_of(corpus, train_front_end=True))["audio"]
    assert any(name.startswith(FRONT_END) for name in asked)
    assert {name for name in asked if not name.startswith(FRONT_END)} == learning(model_of(corpus))["audio"]


def test_norms_alone_may_learn_and_each_modality_may_have_a_choice_of_its_own(corpus: Path) -> None:
    for names in learning(model_of(corpus, unfreeze="norms")).values():
        assert names
        assert all("norm" in name.lower() for name in names)
    mixed = learning(model_of(corpus, unfreeze={"audio": "norms", "video": 1}))
    assert all("norm" in name for name in mixed["audio"])
    assert all(name.startswith("encoder.layer.1.") for name in mixed["video"])
    assert not mixed["text"]


@pytest.mark.usefixtures("alone")
def test_adapters_change_nothing_at_first_learn_alone_and_become_part_of_the_weights(corpus: Path) -> None:
    plain = model_of(corpus, unfreeze=1)
    plan = plan_finetune(config_of(corpus, unfreeze=1, lora=Lora(rank=2)))
    model, loaders = load(plan, CPU)
    (batch, *_) = loaders.over(clips_of(plan, "train"))
    with torch.inference_mode():
        before = model.eval()(batch.inputs, batch.present).logits_BC
        assert torch.equal(before, plain.eval()(batch.inputs, batch.present).logits_BC)
    for names in learning(model).values():
        assert names
        assert all("lora_" in name and ".1." in name for name in names)
    stepper = Stepper(model, FinetuneOptim(lr=1e-1), 10, ALONE)
    stepper.step([batch], batch.clips)
    stepper.step([batch], batch.clips)
    with torch.inference_mode():
        learned = model.eval()(batch.inputs, batch.present).logits_BC
        assert not torch.allclose(learned, before, atol=1e-2)
        model.merge_adapters()
        torch.testing.assert_close(model(batch.inputs, batch.present).logits_BC, learned, rtol=1e-4, atol=1e-5)
    for name, network in model.networks.items():
        expected = AutoModel.from_pretrained(getattr(encoders_of(corpus), name)).state_dict()
        assert network.state_dict().keys() == expected.keys()
    first, second = (weights_that_learn(model_of(corpus, lora=Lora(rank=2))) for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    with pytest.raises(ValueError, match="lora stands beside linear layers"):
        config_of(corpus, unfreeze="norms", lora=Lora())


def test_rates_rise_then_fall_and_blocks_further_down_learn_more_slowly(corpus: Path) -> None:
    np.testing.assert_allclose([rate(step, 10, 4) for step in range(5)], [0.25, 0.5, 0.75, 1, 1])
    assert rate(10, 10, 4) == pytest.approx(0)
    assert rate(0, 10, 0) == 1
    model = model_of(corpus)
    groups = groups_of(model, FinetuneOptim(lr=1.0, encoder_lr_scale=0.1, layer_decay=0.5))
    rates = {id(weight): group["lr"] for group in groups for weight in group["params"]}
    assert len(rates) == sum(weight.requires_grad for weight in model.parameters())
    for name, weight in model.named_parameters():
        if weight.requires_grad:
            depth = 0 if ".1." in name else 1 if ".0." in name else 2
            expected = 1.0 if name.startswith("fusion.") else 0.1 * 0.5**depth
            assert rates[id(weight)] == expected, name


@pytest.mark.usefixtures("alone")
def test_gradients_are_shortened_and_the_average_follows_the_weights(corpus: Path) -> None:
    plan = plan_finetune(config_of(corpus, unfreeze=1))
    model, loaders = load(plan, CPU)
    (batch, *_) = loaders.over(clips_of(plan, "train"))
    stepper = Stepper(model, FinetuneOptim(lr=1e-2, clip_norm=1e-3, average=0.5), 10, ALONE)
    weight, averages, seen = next(iter(model.fusion.weights.values())), [], []
    for _ in range(3):
        stepper.step([batch], batch.clips)
        norm = torch.stack([one.grad.norm() for one in stepper.learning.values() if one.grad is not None]).norm()
        assert norm <= 1.001e-3
        seen.append(weight.detach().clone())
        with stepper.averaged():
            averages.append(weight.detach().clone())
        assert torch.equal(weight, seen[-1])
    expected = seen[0]
    for value, average in zip(seen, averages, strict=True):
        expected = 0.5 * expected + 0.5 * value
        torch.testing.assert_close(average, expected)


@pytest.mark.usefixtures("alone")
def test_training_ends_early_where_it_gets_no_better(corpus: Path) -> None:
    plan = plan_finetune(config_of(corpus))
    model, loaders = load(plan, CPU)
    optim = FinetuneOptim(epochs=20, batch_size=2, patience=2)
    validation = clips_of(plan, "validation")
    perfect = 1000 * np.eye(2, dtype=np.float32)[validation.labels]
    training = Training(model, clips_of(plan, "train"), validation, loaders, optim, ALONE, NO_NEWS)
    history, _ = training.run([perfect, perfect])
    assert len(history.train_loss) == 2


def test_weights_of_other_names_are_not_put_back(corpus: Path) -> None:
    model = model_of(corpus, unfreeze=1)
    with pytest.raises(ValueError, match="other weights learn now"):
        put_back(model, {"more": torch.zeros(1)})


def test_one_modality_always_stays_and_what_is_withheld_follows_from_the_clip(corpus: Path) -> None:
    present = frozenset(("audio", "video", "text"))
    draws = [withheld_modalities(present, 0.5, np.random.default_rng(seed)) for seed in range(400)]
    assert all(len(one) < 3 for one in draws)
    for name in present:
        # Half of them, less a third of the eighth in which all would be withheld.
        assert abs(np.mean([name in one for one in draws]) - (0.5 - 1 / 24)) < 0.07
    assert not any(withheld_modalities(present, 0.0, np.random.default_rng(seed)) for seed in range(20))
    assert withheld_modalities(frozenset(), 0.5, np.random.default_rng(0)) == frozenset()

    def kept(order: int) -> list[Any]:
        plan = plan_finetune(config_of(corpus, modality_dropout=0.6))
        items = plan.parts["train"][::order]
        augment = plan.config.augment
        clips = MediaClips(items, plan.media, 8, samples=1600, augment=augment, modality_dropout=0.6)
        return [{name: one is None for name, one in clips[row].by_modality.items()} for row in range(len(items))][
            ::order
        ]

    assert kept(1) == kept(-1)
    assert any(any(one.values()) for one in kept(1))


@pytest.mark.parametrize(
    ("name", "shape", "own"), [("input_features", (2, 80, 300), 100), ("input_values", (2, 4000), 0)]
)
def test_spans_of_the_sound_are_hidden_as_the_clip_draws_them(name: str, shape: tuple[int, ...], own: int) -> None:
    values = torch.rand(shape) + 1
    spec = SpecAugment(time_spans=2, time_share=0.3, mel_spans=2, mel_share=0.3)

    def hidden(seed: int) -> torch.Tensor:
        inputs = {name: values.clone(), **({OWN: torch.tensor([own, own])} if own else {})}
        hide_spans(inputs, 1, spec, np.random.default_rng(seed))
        return inputs[name]

    one = hidden(0)
    assert torch.equal(one, hidden(0))
    assert not torch.equal(one, hidden(1))
    assert torch.equal(one[0], values[0])
    changed = one[1] != values[1]
    assert 0 < changed.double().mean() < 0.9
    if own:
        assert not changed[:, 2 * own :].any()
        bands, frames = changed[:, : 2 * own].all(1), changed[:, : 2 * own].all(0)
        assert bands.any()
        assert frames.any()
        assert (changed[:, : 2 * own] == (bands[:, None] | frames[None])).all()


def test_nothing_is_hidden_when_it_is_evaluated(corpus: Path) -> None:
    plan = plan_finetune(config_of(corpus, spec_augment=SpecAugment(time_share=0.9)))
    _, loaders = load(plan, CPU)
    for part, hides in (("train", True), ("validation", False)):
        clips = clips_of(plan, part)
        rows = [clips[0]]
        shown = together(loaders.collator(rows), "audio")["input_values"]
        whole = loaders.collator.preparers["audio"].inputs([rows[0].by_modality["audio"]])["input_values"]
        assert torch.equal(shown, whole) is not hides
