"""Whose trouble an error is: one clip's, which then fails alone, or the machine's, which ends the rank.

A failed clip is remembered as failed. What the machine did to it must not be: a GPU that is gone fails every clip
after the first, a full or vanished disk does, and the next start would find them all decided. So the rank ends with the
error, its unit stays pending, and torchrun or the same command tries again. A noise recording that cannot be used is
no clip's trouble either: it would fail all clips that draw it; nor is a batch that is too large.
"""

from __future__ import annotations

import torch

from extract.asr.transcript import NoRoom
from extract.corrupt.noise.excerpt import RecordingError

# What CUDA libraries say in a plain RuntimeError. After most of them the process's context is lost for good.
LIBRARIES_OF_THE_GPU = ("CUDA error", "CUDA driver", "cuDNN error", "CUBLAS_STATUS", "CUFFT_STATUS", "NCCL error")


def is_the_machines(error: Exception) -> bool:
    """Whether an error met while a clip was read or encoded says nothing about the clip.

    Files of clips are opened where they are decoded; an `OSError` after that is the store's or the disk's.
    """
    if isinstance(
        error, (RecordingError, NoRoom, OSError, MemoryError, torch.OutOfMemoryError, torch.AcceleratorError)
    ):
        return True
    return isinstance(error, RuntimeError) and any(name in str(error) for name in LIBRARIES_OF_THE_GPU)
