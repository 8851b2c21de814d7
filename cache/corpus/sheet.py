"""A metadata.csv as people's programs write it, read strictly: what is plain is read, what would be a guess is refused.

Plain are a byte order mark, any line ends, columns in capitals or with spaces around ("Clip_ID", " Path"), semicolons
or tabs between cells where commas make no header, and lines of empty cells at the end of a spreadsheet. Refused, with
the line, are text that is not UTF-8 and a line with more cells than the header has names: there a cell that holds an
unquoted comma would move all cells after it into columns that are not theirs.

A table whose name ends in `.parquet` is read by the same rules (`cache.corpus.parquet`); its lines are rows.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from cache.corpus.parquet import is_parquet, parquet_cells, parquet_names

DELIMITERS = (",", ";", "\t")
UTF_16_MARKS = (b"\xff\xfe", b"\xfe\xff")

PARQUET_MARK = b"PAR1"
# What a corpus's table is called unless it is given a name of its own.
USUAL_NAMES = ("metadata.csv", "metadata.parquet")

Row = tuple[int, dict[str, str]]


def is_table(file: Path) -> bool:
    """Whether a file is a table of clips, by its name."""
    return file.suffix.lower() == ".csv" or is_parquet(file)


def place_in(metadata: Path, number: int) -> str:
    """A line of a table, or a row, for messages."""
    return f"{metadata} {'row' if is_parquet(metadata) else 'line'} {number}"


def read_rows(metadata: Path, required: Sequence[str], further: Sequence[str] = ()) -> Iterator[Row]:
    """Numbers of lines, and cells by column, of every line that is not empty, one after another as they are read.

    Args:
        metadata: the table.
        required: the columns that it must have.
        further: columns that matter where it has them.

    Raises:
        ValueError: one line naming the file, the line where it is known, what was found and what to do.
    """
    is_empty = True
    for row in _parquet_rows(metadata, required, further) if is_parquet(metadata) else _csv_rows(metadata, required):
        is_empty = False
        yield row
    if is_empty:
        raise ValueError(f"{metadata} lists no clips")


def _parquet_rows(metadata: Path, required: Sequence[str], further: Sequence[str]) -> Iterator[Row]:
    header = [column_name(name) for name in parquet_names(metadata)]
    _check_header(metadata, header, required)
    asked = {*required, *further}
    for number, cells in parquet_cells(metadata, [place for place, name in enumerate(header) if name in asked]):
        if any(cell.strip() for cell in cells):
            yield number, dict(zip(header, cells, strict=True))


def _csv_rows(metadata: Path, required: Sequence[str]) -> Iterator[Row]:
    delimiter = _delimiter(_header(metadata), required)
    try:
        with metadata.open(encoding="utf-8-sig", newline="") as file:
            yield from _rows(metadata, _without_nul(metadata, file), delimiter, required)
    except UnicodeDecodeError as error:
        raise ValueError(f"{metadata} is not a CSV file in UTF-8: {_foreign(metadata.read_bytes())}") from error
    except csv.Error as error:
        raise ValueError(f"{metadata} is not a CSV file in UTF-8: {error}") from error


def columns_of(metadata: Path) -> list[str]:
    """The names of a table's columns, whichever delimiter gives most of them.

    Raises:
        ValueError: one line: it is not text in UTF-8, nor Parquet.
    """
    if is_parquet(metadata):
        return [column_name(name) for name in parquet_names(metadata)]
    header = _header(metadata)
    cells = max((header.split(delimiter) for delimiter in DELIMITERS), key=len)
    return [column_name(cell) for cell in cells]


def column_name(cell: str) -> str:
    """A column's name without its writer's habits: " Clip ID" and "clip_id" are one column."""
    return cell.strip().strip('"').strip().casefold().replace(" ", "_").replace("-", "_")


def _header(metadata: Path) -> str:
    """The first line, of a file that is text in UTF-8 as far as that."""
    with metadata.open("rb") as file:
        line = file.readline()
    if line.startswith(UTF_16_MARKS):
        raise ValueError(f"{metadata} is not a CSV file in UTF-8: it is UTF-16; save it again as CSV in UTF-8")
    if line.startswith(PARQUET_MARK):
        raise ValueError(f"{metadata} is not a CSV file in UTF-8: it is Parquet; give it a name that ends in .parquet")
    try:
        return (line.decode("utf-8-sig").splitlines() or [""])[0]
    except UnicodeDecodeError as error:
        raise ValueError(f"{metadata} is not a CSV file in UTF-8: {_foreign(line)}") from error


def _without_nul(metadata: Path, lines: Iterable[str]) -> Iterator[str]:
    for line in lines:
        if "\0" in line:
            raise ValueError(f"{metadata} is not a CSV file in UTF-8: it contains a NUL byte")
        yield line


def _foreign(content: bytes) -> str:
    """Where the first byte stands that is not UTF-8, and what it would be in the commonest other encoding."""
    try:
        content.decode()
    except UnicodeDecodeError as error:
        position = error.start
    else:
        return "it was changed while it was read; try again"
    line = content.count(b"\n", 0, position) + 1
    byte = content[position : position + 1]
    meant = byte.decode("cp1252", errors="ignore")
    guess = f" (in Windows' cp1252 it would be {meant!r})" if meant.isprintable() and meant else ""
    return f"line {line} holds byte 0x{byte.hex()}{guess}; save the file again as CSV in UTF-8"


def _delimiter(header: str, required: Sequence[str]) -> str:
    """What stands between cells: the first under which the header has every required name, else a comma."""
    for delimiter in DELIMITERS:
        if set(required) <= {column_name(cell) for cell in header.split(delimiter)}:
            return delimiter
    return ","


def _rows(metadata: Path, lines: Iterable[str], delimiter: str, required: Sequence[str]) -> Iterator[Row]:
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    header = [column_name(cell) for cell in next(reader, [])]
    _check_header(metadata, header, required)
    for cells in reader:
        if not any(cell.strip() for cell in cells):
            continue
        if any(cell.strip() for cell in cells[len(header) :]):
            raise ValueError(
                f"{place_in(metadata, reader.line_num)} has {len(cells)} cells and the header {len(header)}; "
                f'a cell that contains "{delimiter}" must stand in double quotes'
            )
        yield reader.line_num, dict(zip(header, cells, strict=False))


def _check_header(metadata: Path, header: Sequence[str], required: Sequence[str]) -> None:
    missing = [name for name in required if name not in header]
    if missing:
        found = f"; found: {', '.join(header)[:200]}" if any(header) else ""
        raise ValueError(f"{metadata} has no column {', '.join(missing)}; it needs {', '.join(required)}{found}")
    twice = [name for name in dict.fromkeys(header) if name and header.count(name) > 1]
    if twice:
        raise ValueError(f"{metadata} has the column {twice[0]} twice; each may stand there once")
