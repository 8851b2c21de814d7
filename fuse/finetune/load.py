"""From a plan to what a rank works with: the model on its device, the clips of each part, and their loaders."""

from __future__ import annotations

import numpy as np
import torch

from cache.media import SAMPLE_RATE_HZ
from extract.encoders.base import NetworkEncoder
from extract.encoders.catalogue import encoder_class
from extract.encoders.preparer import Preparer
from fuse.finetune.inputs.batches import Collator, Loaders
from fuse.finetune.inputs.clips import MediaClips
from fuse.finetune.network import (
    Adapters,
    EndToEndModel,
    checkpoint_gradients,
    encoder_dtype,
    freeze_unused,
    refuse_idle_encoders,
)
from fuse.finetune.plan import FinetunePlan


def load(plan: FinetunePlan, device: torch.device) -> tuple[EndToEndModel, Loaders]:
    """The model, ready to train on this device, and the loaders that feed it.

    Raises:
        ValueError: an encoder cannot be loaded, cannot take `audio_seconds` of sound, or would not learn.
    """
    config = plan.config
    encoders: dict[str, NetworkEncoder] = {
        name: encoder_class(name, model)(model, device, plan.options[name]) for name, model in plan.models.items()
    }
    if "audio" in encoders and plan.samples is not None:
        refuse_length(encoders["audio"].preparer, plan.samples)
    assert config.layers is not None
    dtype = encoder_dtype(config.precision, device)
    model = EndToEndModel(encoders, plan.start.fusion.to(device), config.layers, dtype)
    chosen = {name: config.unfrozen(name) for name in encoders}
    lora = config.lora
    adapters = Adapters(lora.rank, lora.alpha, lora.dropout, plan.seed) if lora else None
    for name, how in chosen.items():
        model.unfreeze(name, how, front_end=config.train_front_end, adapters=adapters)
    if config.gradient_checkpointing:
        checkpoint_gradients(model)
    video = plan.models.get("video")
    frames, size = (int(plan.media.provenance["frames"]), video.size) if video and plan.media else (0, 0)
    preparers = {name: encoder.preparer for name, encoder in encoders.items()}
    collator = Collator(preparers, plan.samples or SAMPLE_RATE_HZ, frames, size, config.spec_augment)
    stand_in = collator.stand_in().to(device)
    freeze_unused(model, stand_in.inputs, stand_in.present)
    refuse_idle_encoders(model, chosen)
    return model, Loaders(collator, config.optim.batch_size, config.loader_workers)


def refuse_length(preparer: Preparer, samples: int) -> None:
    """Refuse a length that the encoder cannot take, or takes in windows only.

    Raises:
        ValueError: one line.
    """
    sound_T, seconds = np.zeros(samples, np.float32), samples / SAMPLE_RATE_HZ
    try:
        preparer.batch_key(sound_T)
    except ValueError as error:
        raise ValueError(f"audio_seconds={seconds:g}: {error}") from error
    if windows := preparer.windows(sound_T):
        most = len(windows.parts[0].signal) / SAMPLE_RATE_HZ
        raise ValueError(
            f"audio_seconds={seconds:g}: {preparer.model.name} takes {most:.4g} s of sound at a time, and fine-tuning "
            "knows no windows; set audio_seconds to that or less"
        )


def clips_of(plan: FinetunePlan, part: str) -> MediaClips:
    """The clips of one part; those of `train` are augmented."""
    return MediaClips(
        plan.parts[part],
        plan.media,
        plan.stored,
        condition=plan.config.condition,
        noises=plan.noises,
        samples=plan.samples,
        augment=plan.config.augment if part == "train" else None,
        modality_dropout=plan.config.modality_dropout,
        speeds=plan.config.speeds,
        seed=plan.seed,
    )
