"""Encoders of pictures: of a clip's frames together, or of each frame.

Shape letters: B clips, T frames, H height, W width, C colour channels, N tokens, D width.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import torch

from extract.encoders.base import NetworkEncoder
from extract.encoders.loading import image_processor
from extract.encoders.models import Model
from extract.encoders.options import DEFAULT, EncoderOptions
from extract.encoders.preparer import Array, Inputs, Preparer


class FramesPreparer(Preparer):
    """The model's own image processor.

    Rows are defined on the pixels of the media store, which are of the encoder's size already: the processor
    rescales and normalises them, and neither resizes nor crops.
    """

    def __init__(self, model: Model, options: EncoderOptions = DEFAULT) -> None:
        """Read the image processor's settings."""
        super().__init__(model, options)
        self.processor = image_processor(model)

    def batch_key(self, signal: Array) -> Hashable:
        """All clips of a media store have the same shape."""
        return signal.shape

    def inputs(self, signals: Sequence[Array]) -> Inputs:
        """Frames (T, H, W, C) uint8, already resized and cropped; `pixel_values` of shape (B, T, C, H, W)."""
        return {"pixel_values": torch.stack([self._normalised(frames_THWC) for frames_THWC in signals])}

    def _normalised(self, frames_THWC: Array) -> torch.Tensor:
        """Rescaled and normalised as the model's own processor does, (T, C, H, W)."""
        settings = {"do_resize": False, "do_center_crop": False, "return_tensors": "pt"}
        pixels: torch.Tensor = self.processor(list(frames_THWC), **settings).pixel_values
        # Processors of videos put a batch of one around the frames, those of images do not.
        return pixels.reshape(-1, *pixels.shape[-3:])


class VideoEncoder(NetworkEncoder):
    """VideoMAE (Tong et al. 2022, arXiv 2203.12602): a fixed number of frames, no class token."""

    preparer_class = FramesPreparer


class ClassTokenVideoEncoder(VideoEncoder):
    """TimeSformer (Bertasius et al. 2021, arXiv 2102.05095) and ViViT (Arnab et al. 2021, arXiv 2103.15691):
    as VideoMAE, with a class token before the others."""

    poolings = ("mean", "mean_std", "cls")


class ImageEncoder(VideoEncoder):
    """Image encoders, applied to every frame: ViT (arXiv 2010.11929), DINOv2 (arXiv 2304.07193).

    They take any number of frames. `mean` and `mean_std` are over the tokens of all frames, `cls` is the mean
    of the frames' class tokens.
    """

    poolings = ("mean", "mean_std", "cls")

    def states(self, inputs: Inputs) -> Sequence[torch.Tensor]:
        """Every hidden state, (B, T, N, D) each."""
        pixels_BTCHW = inputs["pixel_values"]
        states = super().states({"pixel_values": pixels_BTCHW.flatten(0, 1)})
        return [state.reshape(*pixels_BTCHW.shape[:2], *state.shape[1:]) for state in states]

    def pool(self, state: torch.Tensor, own: list[slice] | None, pooling: str) -> torch.Tensor:
        """One hidden state (B, T, N, D) to one row per clip."""
        if pooling == "cls":
            return state[:, :, 0].mean(1)
        return super().pool(state.flatten(1, 2), own, pooling)


class ClipEncoder(ImageEncoder):
    """The vision half of CLIP (Radford et al. 2021, arXiv 2103.00020), before its projection."""

    @staticmethod
    def tower(network: torch.nn.Module) -> torch.nn.Module:
        """Without the text half, if the folder holds both."""
        vision: torch.nn.Module = getattr(network, "vision_model", network)
        return vision
