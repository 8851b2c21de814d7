"""Which tracks of a file are read, and what is in them: seen by reading its packets, before any is decoded.

Headers are not asked: they count frames that an edit list hides, promise tracks that are empty, and often say nothing.
"""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import av

# What an index at the front or end of the file lists is there, or the file is damaged.
INDEXED = "mov,mp4,m4a,3gp,3g2,mj2"
# Their last block is marked as damaged where it is merely shorter than the others.
BLOCKS_OF_ANY_LENGTH = ("wav", "w64", "aiff", "au", "caf")
PLAYLISTS = ("concat", "hls", "dash", "imf", "sdp")


@dataclass(frozen=True)
class Tracks:
    """The tracks of a file that are read.

    Attributes:
        sound: index of the sound track; None: none has a packet.
        picture: index of the picture track, never a cover.
        frames: packets of the picture track that are to be shown.
        repeats: of these, by number, how many more times each is shown: capture programs write an empty packet into an
            AVI for a frame that is like the one before.
        format: FFmpeg's name of the container.
        sound_seconds: length of the sound track as the container has it; 0 where it does not say.
        begins: time of the first packet of the picture track, in its own ticks.
        orphans: packets that come later but are to be shown earlier. Where a film was cut out of a longer one at an
            open group of pictures they lean on frames that are gone: no player shows them.
    """

    format: str
    sound: int | None = None
    picture: int | None = None
    frames: int = 0
    repeats: dict[int, int] = field(default_factory=dict)
    sound_seconds: float = 0.0
    begins: int | None = None
    orphans: int = 0


def open_media(path: Path) -> Any:
    """Open a media file for reading, and no other: a container may not lead FFmpeg to one or into the network.

    Without `file:` FFmpeg would take what stands before a colon for a protocol.
    """
    return av.open(f"file:{path}", options={"protocol_whitelist": "file"}, metadata_errors="replace")


def declares_sound(path: Path) -> bool:
    """Whether the header says that there is sound: cheap, and not always true.

    Raises:
        ValueError: it is not a media file.
    """
    try:
        with open_media(path) as container:
            return bool(container.streams.audio)
    except (av.error.FFmpegError, IndexError) as error:
        raise _unreadable(error) from error


def survey(path: Path) -> Tracks:
    """Read all packets of a file and choose the tracks: the default one of each kind, else the first with packets.

    Raises:
        ValueError: it is not a media file, or its packets are damaged.
    """
    try:
        with open_media(path) as container:
            tracks = _survey(container)
    except (av.error.FFmpegError, IndexError) as error:
        raise _unreadable(error) from error

    if tracks.format == "avi" and tracks.picture is not None:
        empty = _empty_at_the_end(path, tracks.picture)
        tracks.repeats.update({tracks.frames - 1: empty} if empty else {})
    return tracks


def _unreadable(error: Exception) -> ValueError:
    return ValueError(f"not a readable media file: {getattr(error, 'strerror', error)}")


def _survey(container: Any) -> Tracks:
    if container.format.name in PLAYLISTS:
        raise ValueError("a list of other files, not a clip")
    packets: Counter[int] = Counter()
    shown: Counter[int] = Counter()
    times: dict[int, list[int | None]] = {}
    begins: dict[int, int | None] = {}
    orphans: Counter[int] = Counter()
    for packet in container.demux() if len(container.streams) else ():
        if not packet.size:
            continue
        if packet.is_corrupt and container.format.name not in BLOCKS_OF_ANY_LENGTH:
            raise ValueError("damaged inside: a packet is not whole")
        index = packet.stream_index
        packets[index] += 1
        shown[index] += not packet.is_discard
        first = begins.setdefault(index, packet.pts)
        orphans[index] += is_before(packet.pts, first) and not packet.is_discard
        if container.format.name == "avi":
            times.setdefault(index, []).append(packet.dts)
    sound = _chosen(container.streams.audio, packets)
    picture = _chosen([stream for stream in container.streams.video if not _is_cover(stream)], packets)
    for stream in (sound, picture):
        _refuse_fewer_packets(container.format.name, stream, packets)
    return Tracks(
        container.format.name,
        None if sound is None else sound.index,
        None if picture is None else picture.index,
        0 if picture is None else shown[picture.index],
        {} if picture is None else _repeats(times.get(picture.index, [])),
        0.0 if sound is None else _seconds(container.format.name, sound, packets[sound.index]),
        None if picture is None else begins[picture.index],
        0 if picture is None else orphans[picture.index],
    )


def is_before(time: int | None, begins: int | None) -> bool:
    """Whether a packet is to be shown before the first one."""
    return time is not None and begins is not None and time < begins


def _seconds(container: str, sound: Any, packets: int) -> float:
    # What comes in fragments has no length in its header, and FFmpeg's sum of them counts the start of the picture.
    in_fragments = container == INDEXED and sound.frames < packets
    return float(sound.duration * sound.time_base) if sound.duration and not in_fragments else 0.0


def _is_cover(stream: Any) -> bool:
    return bool(stream.disposition & av.stream.Disposition.attached_pic)


def _chosen(streams: Any, packets: Counter[int]) -> Any:
    filled = [stream for stream in streams if packets[stream.index]]
    default = (stream for stream in filled if stream.disposition & av.stream.Disposition.default)
    return next(default, filled[0] if filled else None)


def _refuse_fewer_packets(container: str, stream: Any, packets: Counter[int]) -> None:
    listed = len(stream.index_entries) if stream is not None and container == INDEXED else 0
    if stream is not None and packets[stream.index] < listed:
        kind = "frames" if stream.type == "video" else "packets of sound"
        raise ValueError(f"only {packets[stream.index]} of {listed} {kind} are there")


def _empty_at_the_end(path: Path, picture: int) -> int:
    """How many empty packets stand behind the last of an AVI's picture: FFmpeg passes over them, the index has them."""
    with path.open("rb") as file:
        _, size = _chunk(file, 0)
        offset, name = 12, b""
        # An AVI over a gigabyte has an index for each of its parts.
        while offset + 8 <= 8 + size and path.stat().st_size <= 9 + size and name != b"idx1":
            name, length = _chunk(file, offset)
            offset += 8 + length + length % 2
        index = file.read(length) if name == b"idx1" else b""
    entries = [index[place : place + 16] for place in range(0, len(index), 16)]
    lengths = [entry[12:] for entry in entries if entry[:4] in (b"%02ddc" % picture, b"%02ddb" % picture)]
    return sum(1 for _ in itertools.takewhile(lambda length: not any(length), reversed(lengths)))


def _chunk(file: BinaryIO, offset: int) -> tuple[bytes, int]:
    file.seek(offset)
    return file.read(4), int.from_bytes(file.read(4), "little")


def _repeats(times: list[int | None]) -> dict[int, int]:
    """In an AVI time is the number of the packet, the empty ones counted: a gap is as many of those."""
    return {
        number: after - before - 1
        for number, (before, after) in enumerate(itertools.pairwise(times))
        if before is not None and after is not None and after - before > 1
    }
