"""`make preview`: one clip under every condition, to look at and to listen to before hours are spent on a corpus.

<out>/<clip id>/frames.png            a row of frames for each visual condition
                spectrograms.png      each acoustic condition, with what the recogniser understood
                <condition>.wav       to listen to
                preview.csv           transcripts, word error rates, confidences
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from cache.conditions import Condition, parse_condition, stored_conditions
from cache.corpus.clips import Corpus, read_corpus
from cache.files.atomic import write_atomic
from cache.media import Failure, Media
from configs.command.entry import main
from configs.command.progress import Progress
from configs.schema.preview import PREVIEW_CONDITIONS, PreviewConfig
from extract.asr.models import check_asr
from extract.corrupt.apply import corrupt
from extract.corrupt.noise.sources import RECORDED, NoiseSource, NoiseSources, noise_sources
from extract.media.cut import Cut
from extract.media.decode import decode_all
from extract.preview.clip import ClipFile, find_clip
from extract.preview.listening import Heard, find_recogniser, listen, transcript_table
from extract.preview.sheets import Panel, contact_sheet, spectrogram_sheet

CONTACT_SHEET, SPECTROGRAMS, TRANSCRIPTS = "frames.png", "spectrograms.png", "preview.csv"
SIGNALS = {"audio": "sound", "video": "picture"}


def run(config: PreviewConfig) -> int:
    """Write the sheets, sounds and transcripts of one clip; say where they are and what is missing."""
    corpus = _corpus(config)
    clip = _clip_file(config, corpus)
    folder = _folder(config, clip)
    conditions, noises = _conditions(config, corpus)
    media = _decoded(config, clip)
    sounds, pictures = (_of_signal(conditions, media, modality, clip.path) for modality in SIGNALS)
    if not sounds and not pictures:
        raise ValueError(f"{clip.path}: none of the conditions changes what is in it; give other conditions=[...]")
    recogniser, note = find_recogniser(config.asr, clip.statement) if sounds else (None, "")
    _forget(folder)
    with Progress("preview", len(sounds) + len(pictures), "conditions") as progress:
        under = partial(_corrupted, media, clip.clip_id, noises, progress)
        heard = list(listen(recogniser, clip.statement, under(sounds), folder))
        seen = [(name, made.frames_THWC) for name, made in under(pictures)]
    if heard:
        write_atomic(folder / TRANSCRIPTS, transcript_table(heard))
        spectrogram_sheet([_panel(sound) for sound in heard], folder / SPECTROGRAMS, _title(clip), note)
        print(f"wrote {folder / SPECTROGRAMS}, {TRANSCRIPTS} and {len(heard)} wav files")
    if seen:
        rows = [(name, frames_THWC) for name, frames_THWC in seen if frames_THWC is not None]
        contact_sheet(rows, folder / CONTACT_SHEET, clip.clip_id)
        print(f"wrote {folder / CONTACT_SHEET}: {len(rows)} rows")
    return 0


def _clip_file(config: PreviewConfig, corpus: Corpus | None) -> ClipFile:
    if config.clip is None:
        raise ValueError("clip is missing; name a media file (make preview CLIP=x.mp4), or a clip id with corpus=FILE")
    if config.asr.model is not None:
        check_asr(config.asr)
    clip = find_clip(config.clip, corpus)
    return clip if config.statement is None else replace(clip, statement=config.statement)


def _folder(config: PreviewConfig, clip: ClipFile) -> Path:
    folder = Path(config.out) / clip.folder_name
    if folder.resolve() == clip.path.resolve().parent:
        raise ValueError(f"the clip lies in {folder}, where its own preview would be written; give another out=FOLDER")
    return folder


def _title(clip: ClipFile) -> str:
    return f"{clip.clip_id}\n" + (f"statement: {clip.statement}" if clip.statement else "no statement")


def _corpus(config: PreviewConfig) -> Corpus | None:
    if config.corpus is None:
        return None
    root = Path(config.corpus_root) if config.corpus_root else None
    return read_corpus(Path(config.corpus), root, config.follow_links, config.labels)


def _conditions(config: PreviewConfig, corpus: Corpus | None) -> tuple[tuple[Condition, ...], NoiseSources]:
    """What to show, clean first, and the recordings for it; what was not asked for may be left out, with a line.

    Raises:
        ValueError: a condition that was asked for lacks its recordings.
    """
    chosen = stored_conditions(PREVIEW_CONDITIONS if config.conditions is None else config.conditions)
    sources: dict[str, NoiseSource] = {}
    for kind in dict.fromkeys(condition.kind for condition in chosen if condition.kind in RECORDED):
        named = config.noise.folder if kind == "noise-file" else config.noise.babble_speakers
        try:
            sources.update(_source(config, corpus, kind))
        except ValueError as error:
            if config.conditions is not None or named is not None:
                raise
            print(f"left out: {error}")
    possible = (condition for condition in chosen if condition.kind in sources or condition.kind not in RECORDED)
    return tuple(possible), NoiseSources(sources)


def _source(config: PreviewConfig, corpus: Corpus | None, kind: str) -> Mapping[str, NoiseSource]:
    if corpus is None and kind == "noise-babble":
        raise ValueError("noise-babble needs other people's voices: give corpus=metadata.csv")
    return noise_sources(config.noise, corpus or Corpus(Path(), (), ()), [kind]).by_kind


def _decoded(config: PreviewConfig, clip: ClipFile) -> Media:
    """Decode in a worker, as a run does: a decoder that hangs or crashes ends in one line.

    Raises:
        ValueError: the file is damaged.
    """
    frames, size, timeout = config.media.frames, config.media.size, config.media.timeout_seconds
    ((media, _),) = decode_all(
        [clip.path],
        stretches=[clip.stretch],
        frames=frames,
        size=size,
        workers=1,
        timeout_seconds=timeout,
        check=lambda: None,
        cut=Cut.of(config.media),
        reader=config.media.reader,
    )
    if isinstance(media, Failure):
        raise ValueError(f"{clip.path}: {media.reason}")
    return media


def _of_signal(conditions: Sequence[Condition], media: Media, modality: str, path: Path) -> list[Condition]:
    """Clean and the conditions that change this signal; none where it is not there or nothing is to change it."""
    chosen = [condition for condition in conditions if condition.modality in ("", modality)]
    if len(chosen) == 1 and len(conditions) > 1:
        return []
    if (media.waveform_T if modality == "audio" else media.frames_THWC) is None:
        print(f"left out: {path.name} has no {SIGNALS[modality]}")
        return []
    return chosen


def _forget(folder: Path) -> None:
    """Remove an earlier preview: its sounds would lie beside sheets that do not show them."""
    sounds = [path for path in folder.glob("*.wav") if _is_condition(path.stem)]
    for path in [*sounds, *(folder / name for name in (CONTACT_SHEET, SPECTROGRAMS, TRANSCRIPTS))]:
        path.unlink(missing_ok=True)


def _is_condition(name: str) -> bool:
    try:
        parse_condition(name)
    except ValueError:
        return False
    return True


def _corrupted(
    media: Media, clip_id: str, noises: NoiseSources, progress: Progress, conditions: Sequence[Condition]
) -> Iterator[tuple[str, Media]]:
    """The clip under each condition; one that cannot be made of this clip is left out, with a line."""
    for condition in conditions:
        try:
            made = corrupt(media, condition, clip_id, noises)
        except ValueError as error:
            print(f"left out: {condition.name}: {error}")
        else:
            yield condition.name, made
        progress.add(1)


def _panel(heard: Heard) -> Panel:
    is_wrong = bool(heard.failure) or (heard.transcript is not None and heard.transcript.wer > 0)
    return Panel(heard.condition, heard.waveform_T, heard.lines, is_wrong)


if __name__ == "__main__":
    sys.exit(main(PreviewConfig, run, "Show one clip under every condition."))
