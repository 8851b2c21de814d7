"""A corpus's table as Parquet: the form of tables with very many rows. pyarrow is needed for it and for nothing else.

Cells become the text that a CSV of the same table holds: text as it is, numbers and truth values as Python writes them,
categories as what they stand for, null and NaN as nothing. Durations become seconds. Columns of bytes, lists and the
like (`datasets` keeps sound itself in one) are passed over; where such a column is asked for, it is refused.
"""

from __future__ import annotations

import importlib
import io
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

SUFFIX = ".parquet"
INSTALL = "needs pyarrow, which is not installed; run: pip install --no-deps -r requirements-parquet.txt"
# What is in memory at a time while a table is read, and what of one that is written can be read alone.
ROWS_AT_ONCE, ROWS_PER_GROUP = 16_384, 131_072
TICKS_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}


def is_parquet(file: Path) -> bool:
    """Whether a table is Parquet, by its name."""
    return file.suffix.lower() == SUFFIX


def refuse_no_pyarrow(file: Path) -> None:
    """Refuse a table that can be neither read nor written here.

    Raises:
        ValueError: it is Parquet, and pyarrow is not installed.
    """
    if is_parquet(file):
        _pyarrow(file)


def parquet_names(file: Path) -> list[str]:
    """The names of a table's columns, as they stand there.

    Raises:
        ValueError: one line: it is not Parquet, or pyarrow is not installed.
    """
    return list(_opened(file).schema_arrow.names)


def parquet_cells(file: Path, places: Collection[int]) -> Iterator[tuple[int, list[str]]]:
    """Numbers of rows, from 1, and their cells as text, "" for those of columns that are passed over.

    Args:
        file: the table; no two of its columns have the same name.
        places: of the columns that are asked for.

    Raises:
        ValueError: one line: a column that is asked for holds neither text nor numbers, a cell is not UTF-8 or holds a
            NUL byte, or the file is damaged.
    """
    opened, (pyarrow, _) = _opened(file), _pyarrow(file)
    fields = list(opened.schema_arrow)
    plain = [_is_plain(pyarrow.types, field.type) for field in fields]
    odd = next((field for place, field in enumerate(fields) if place in places and not plain[place]), None)
    if odd is not None:
        raise ValueError(f"{file}: column {odd.name} holds {odd.type}; write it as text or numbers")
    names = [field.name if is_plain else "" for field, is_plain in zip(fields, plain, strict=True)]
    before = 0
    try:
        for batch in opened.iter_batches(ROWS_AT_ONCE, columns=[name for name in names if name]):
            # By name: pyarrow takes "a.b" for a part of "a" as well, and gives that too.
            read = {name: batch.column(batch.schema.names.index(name)) for name in names if name}
            texts = {name: _texts(file, before, column, pyarrow) for name, column in read.items()}
            columns = [texts.get(name) or [""] * batch.num_rows for name in names]
            for number, cells in enumerate(zip(*columns, strict=True), start=before + 1):
                yield number, list(cells)
            before += batch.num_rows
    except (pyarrow.ArrowException, OSError) as error:
        raise ValueError(f"{file} is damaged: {_first_line(error)}") from error


def parquet_bytes(header: Sequence[str], rows: Iterable[Iterable[str]]) -> bytes:
    """A table of text as a Parquet file; "" becomes null.

    Raises:
        ValueError: pyarrow is not installed.
    """
    pyarrow, parquet = _pyarrow(Path(f"a table as {SUFFIX}"))
    columns = list(zip(*rows, strict=True)) or [()] * len(header)
    arrays = [pyarrow.array([cell or None for cell in column], pyarrow.string()) for column in columns]
    content = io.BytesIO()
    table = pyarrow.table(arrays, list(header))
    parquet.write_table(table, content, compression="zstd", row_group_size=ROWS_PER_GROUP, write_page_checksum=True)
    return content.getvalue()


def _pyarrow(file: Path) -> tuple[Any, Any]:
    """pyarrow, and the part of it that knows Parquet."""
    try:
        return importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
    except ModuleNotFoundError as error:
        raise ValueError(f"{file} {INSTALL}") from error


def _opened(file: Path) -> Any:
    pyarrow, parquet = _pyarrow(file)
    try:
        return parquet.ParquetFile(file, page_checksum_verification=True)
    except (pyarrow.ArrowException, OSError) as error:
        raise ValueError(f"{file} is not a Parquet file that can be read: {_first_line(error)}") from error


def _is_plain(types: Any, kind: Any) -> bool:
    """Whether a column holds what a cell of a CSV can say."""
    if types.is_dictionary(kind):
        return _is_plain(types, kind.value_type)
    return bool(types.is_null(kind) or _is_text(types, kind) or types.is_primitive(kind) or types.is_decimal(kind))


def _is_text(types: Any, kind: Any) -> bool:
    return bool(types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind))


def _texts(file: Path, before: int, column: Any, pyarrow: Any) -> list[str]:
    """The cells of a column; `before`: how many rows come before the first."""
    types = pyarrow.types
    if types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if _is_text(types, column.type):
        return _checked(file, before, column)
    if types.is_floating(column.type):
        # As numpy's own numbers: a float32 is written with the digits that it has.
        return ["" if value != value else str(value) for value in column.to_numpy(zero_copy_only=False)]
    if types.is_duration(column.type):
        ticks = TICKS_PER_SECOND[column.type.unit]
        return ["" if value is None else str(value / ticks) for value in column.cast(pyarrow.int64()).to_pylist()]
    if not (types.is_integer(column.type) or types.is_boolean(column.type) or types.is_null(column.type)):
        column = column.cast(pyarrow.string())
    return ["" if value is None else str(value) for value in column.to_pylist()]


def _checked(file: Path, before: int, column: Any) -> list[str]:
    """Cells of text."""
    try:
        cells = [cell or "" for cell in column.to_pylist()]
    except UnicodeDecodeError as error:
        row = before + 1 + next(place for place, cell in enumerate(column) if not _is_utf8(cell))
        raise ValueError(f"{file} row {row} holds text that is not UTF-8; write the file again in UTF-8") from error
    if "\0" in "".join(cells):
        row = before + 1 + next(place for place, cell in enumerate(cells) if "\0" in cell)
        raise ValueError(f"{file} row {row} contains a NUL byte")
    return cells


def _is_utf8(cell: Any) -> bool:
    try:
        cell.as_py()
    except UnicodeDecodeError:
        return False
    return True


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
