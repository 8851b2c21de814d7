"""`python -m extract.asr.convert MODEL.pt FOLDER`: OpenAI's checkpoint as a folder that transformers itself can load.

No run needs it: `asr.engine=transformers` reads such a file as it is.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from cache.files.place import local_path
from extract.asr.loading import load_whisper
from extract.asr.openai import quiet


def main(arguments: Sequence[str] | None = None) -> int:
    """Write a folder of transformers for one of OpenAI's checkpoint files, and load it again."""
    parser = argparse.ArgumentParser(description="OpenAI's Whisper checkpoint as a folder of transformers.")
    parser.add_argument("model", type=local_path, metavar="MODEL.pt")
    parser.add_argument("folder", type=local_path)
    parsed = parser.parse_args(arguments)
    try:
        write_folder(parsed.model, parsed.folder)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"wrote {parsed.folder}: asr.engine=transformers asr.model={parsed.folder}")
    return 0


def write_folder(file: Path, folder: Path) -> None:
    """Write weights in the number format of the file, settings, tokenizer and feature extractor.

    Raises:
        ValueError: the file is no such checkpoint, there is something in the folder, or its weights are not the
            file's when they are loaded again.
    """
    from transformers import WhisperFeatureExtractor

    if folder.exists() and any(folder.iterdir()):
        raise ValueError(f"{folder} is not empty; give another folder")
    if not file.is_file():
        raise ValueError(f"{file} is no file; give a Whisper checkpoint of OpenAI's (.pt)")
    whisper = load_whisper(file)
    weights = torch.load(file, map_location="cpu", weights_only=True)["model_state_dict"]
    formats = {tensor.dtype for tensor in weights.values()}
    expected = {name: tensor.clone() for name, tensor in whisper.network.state_dict().items()}
    for name, tokens in whisper.suppressed.items():
        setattr(whisper.settings, name, list(tokens))
    with quiet():
        whisper.network.to(formats.pop() if len(formats) == 1 else torch.float32).save_pretrained(folder)
        whisper.tokenizer.save_pretrained(folder)
        WhisperFeatureExtractor(feature_size=whisper.network.config.num_mel_bins).save_pretrained(folder)
    again = load_whisper(folder).network.state_dict()
    assert all(torch.equal(tensor, again[name]) for name, tensor in expected.items()), "what was written is the file's"


if __name__ == "__main__":
    sys.exit(main())
