"""Files that are not whole by what they say of themselves: FFmpeg takes the end of a file for the end of the clip.

Only lengths that the writing program knew at its end are believed; `docs/media.md` lists them by container.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

# Written by programs that cannot go back to fill in the size: SoX and arecord near 2^31, FFmpeg 2^32 - 1.
UNKNOWN_FROM = 0x7FFF_0000
SIZE_IN_DS64 = 0xFFFF_FFFF
LARGEST_OGG_PAGE = 65_307
MIRRORED_BYTES = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
ASF_FILE_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
MPEG_SIDE_BYTES = {(True, False): 32, (True, True): 17, (False, False): 17, (False, True): 9}  # (MPEG 1, mono)


def refuse_incomplete(path: Path) -> None:
    """Compare the size of a file with what its own structure says, and the pages of an Ogg file with their checksums.

    Raises:
        ValueError: bytes are missing, or are others.
    """
    size = path.stat().st_size
    if not size:
        raise ValueError("the file is empty (0 bytes)")
    with path.open("rb") as file:
        head = file.read(16)
        for begins, ends_at in ENDS.items():
            offset, magic = begins
            if head[offset:].startswith(magic):
                file.seek(0)
                end = ends_at(file, size)
                if end > size:
                    raise ValueError(f"only {size} of {end} bytes are there")
                return


def _number(file: BinaryIO, offset: int, count: int, order: str = "little") -> int:
    file.seek(offset)
    return int.from_bytes(file.read(count), "big" if order == "big" else "little")


def _end_of_wav(file: BinaryIO, size: int) -> int:
    """The end of the `data` chunk: what stands behind it is no sound, and the byte that pads it is often left out."""
    offset, in_ds64 = 12, 0
    while offset + 8 <= size:
        file.seek(offset)
        name, length = file.read(4), int.from_bytes(file.read(4), "little")
        if name == b"ds64":
            in_ds64 = _number(file, offset + 16, 8)
        if name == b"data":
            length = in_ds64 if length == SIZE_IN_DS64 and in_ds64 else length
            unknown = length == 0 or (length >= UNKNOWN_FROM and not in_ds64)
            return 0 if unknown else offset + 8 + length
        offset += 8 + length + length % 2
    return 0


def _end_of_riff(file: BinaryIO, size: int) -> int:
    """AVI: files over a gigabyte are several RIFF chunks. The last byte may be a pad that was left out."""
    offset = 0
    while offset + 8 <= size and _number(file, offset, 4) == int.from_bytes(b"RIFF", "little"):
        length = _number(file, offset + 4, 4)
        if length == 0 or length >= UNKNOWN_FROM:
            return 0
        offset += 8 + length + length % 2
    return offset - 1


def _end_of_aiff(file: BinaryIO, _size: int) -> int:
    length = _number(file, 4, 4, "big")
    return 0 if length == 0 or length >= UNKNOWN_FROM else 8 + length - length % 2


def _end_of_w64(file: BinaryIO, _size: int) -> int:
    length = _number(file, 16, 8)
    return 0 if length >= 1 << 63 else length


def _end_of_caf(file: BinaryIO, size: int) -> int:
    offset = 8
    while offset + 12 <= size:
        file.seek(offset)
        name, length = file.read(4), int.from_bytes(file.read(8), "big")
        if length >= 1 << 63:  # the data of a recording that was not closed
            return 0
        offset += 12 + length
        if name == b"data":
            return offset
    return 0


def _end_of_boxes(file: BinaryIO, size: int) -> int:
    """MP4 and MOV: a box of media or of its index that goes on behind the end of the file."""
    offset = 0
    while offset + 8 <= size:
        length = _number(file, offset, 4, "big")
        name, header = file.read(4), 8
        if length == 1:
            length, header = _number(file, offset + 8, 8, "big"), 16
        if length < header:  # 0: as far as the file goes
            return 0
        if offset + length > size:
            return offset + length if name in (b"mdat", b"moov", b"moof") else 0
        offset += length
    return 0


def _end_of_segment(file: BinaryIO, size: int) -> int:
    """Matroska and WebM: the one segment that holds everything; what is recorded live does not know its size."""
    offset = 4
    for element in (None, 0x18538067):
        if element and _number(file, offset, 4, "big") != element:
            return 0
        offset += 4 if element else 0
        first = _number(file, offset, 1)
        if not first or offset >= size:
            return 0
        width = 9 - first.bit_length()
        length = _number(file, offset, width, "big") & ((1 << 7 * width) - 1)
        if element and length == (1 << 7 * width) - 1:
            return 0
        offset += width + length
    return offset


def _end_of_pages(file: BinaryIO, size: int) -> int:
    """Ogg: the end of the last page. FFmpeg leaves out a page whose checksum is wrong, and goes on with the next."""
    offset = 0
    while offset < size:
        file.seek(offset)
        head = file.read(27)
        if head[:4] != b"OggS":
            if b"OggS" in head + file.read(LARGEST_OGG_PAGE):
                raise ValueError("damaged inside: a page does not follow the one before")
            return 0  # tags that some programs write behind the end
        lengths = file.read(head[26]) if len(head) == 27 else b""
        body = file.read(sum(lengths))
        end = offset + 27 + (head[26] if len(head) == 27 else 0) + sum(lengths)
        if end > size:
            return end
        if _ogg_checksum(head[:22] + bytes(4) + head[26:] + lengths + body) != int.from_bytes(head[22:26], "little"):
            raise ValueError("damaged inside: a page has another checksum than it says")
        offset = end
    return offset


def _ogg_checksum(page: bytes) -> int:
    """CRC-32 with the highest bit first, beginning at zero (RFC 3533, section 6): zlib's of the mirrored bytes."""
    mirrored = zlib.crc32(page.translate(MIRRORED_BYTES), 0xFFFF_FFFF) ^ 0xFFFF_FFFF
    return int.from_bytes(mirrored.to_bytes(4, "little").translate(MIRRORED_BYTES), "big")


def _end_of_asf(file: BinaryIO, _size: int) -> int:
    """WMV and WMA: the file properties, unless they are those of a broadcast."""
    offset, end = 30, _number(file, 16, 8)
    while offset + 24 <= min(end, 1 << 20):
        file.seek(offset)
        if file.read(16) == ASF_FILE_PROPERTIES:
            is_broadcast = _number(file, offset + 88, 4) & 1
            return 0 if is_broadcast else _number(file, offset + 40, 8)
        offset += max(24, _number(file, offset + 16, 8))
    return 0


def _end_of_tags(file: BinaryIO, size: int) -> int:
    """FLV: the end of the last tag that begins."""
    offset = _number(file, 5, 4, "big") + 4
    while offset + 11 <= size:
        offset += 11 + _number(file, offset + 1, 3, "big") + 4
    return offset - 4  # the length behind the last tag is left out by some


def _end_of_mpeg_audio(file: BinaryIO, size: int) -> int:
    """MP3: the bytes that a Xing or Info header counts, from the first frame on."""
    offset = 0
    file.seek(0)
    head = file.read(10)
    if head[:3] == b"ID3":
        offset = 10 + sum((byte & 0x7F) << 7 * (3 - place) for place, byte in enumerate(head[6:10]))
    file.seek(offset)
    frame = file.read(64)
    if len(frame) < 64 or frame[0] != 0xFF or frame[1] & 0xE6 != 0xE2:  # no frame of layer 3
        return 0
    version = frame[1] >> 3 & 3
    tag = 4 + MPEG_SIDE_BYTES[version == 3, frame[3] >> 6 == 3]
    flags = int.from_bytes(frame[tag + 4 : tag + 8], "big")
    if frame[tag : tag + 4] not in (b"Xing", b"Info") or flags & 2 == 0 or offset >= size:
        return 0
    place = tag + 8 + (4 if flags & 1 else 0)
    return offset + int.from_bytes(frame[place : place + 4], "big")


# Offset and bytes by which a format is known, and where such a file ends; 0 where it does not say.
ENDS: dict[tuple[int, bytes], Callable[[BinaryIO, int], int]] = {
    (8, b"WAVE"): _end_of_wav,
    (8, b"AVI "): _end_of_riff,
    (0, b"FORM"): _end_of_aiff,
    (0, b"riff.\x91\xcf\x11"): _end_of_w64,
    (0, b"caff"): _end_of_caf,
    (0, b"\x1aE\xdf\xa3"): _end_of_segment,
    (0, b"OggS"): _end_of_pages,
    (0, b"0&\xb2u\x8ef\xcf\x11"): _end_of_asf,
    (0, b"FLV"): _end_of_tags,
    (0, b"ID3"): _end_of_mpeg_audio,
    (0, b"\xff"): _end_of_mpeg_audio,
    (4, b"ftyp"): _end_of_boxes,
    (4, b"moov"): _end_of_boxes,
    (4, b"mdat"): _end_of_boxes,
    (4, b"wide"): _end_of_boxes,
    (4, b"free"): _end_of_boxes,
    (4, b"skip"): _end_of_boxes,
    (4, b"styp"): _end_of_boxes,
}
