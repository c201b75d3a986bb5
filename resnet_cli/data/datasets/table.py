"""Tables with a row for each image: CSV and TSV files, in the variants that spreadsheets write, and Parquet."""

import codecs
import csv
import importlib.util
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path

from resnet_cli.config.counts import counted
from resnet_cli.config.suggestions import did_you_mean, nearest_name, similar_file
from resnet_cli.data.datasets.problems import raise_problems
from resnet_cli.errors import InputError

DELIMITERS = ",\t;|"
BYTE_ORDER_MARKS = {  # UTF-32 is left out: its mark begins with that of UTF-16, and no program writes tables in it
    codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"
}  # fmt: skip
OTHER_FORMATS = frozenset({".xlsx", ".xls", ".ods", ".json", ".jsonl", ".feather", ".arrow", ".pkl", ".npz", ".zip"})
EXCEL_DELIMITER = re.compile(rf"sep=([{re.escape(DELIMITERS)}])[,;]*$")  # a line before the names of the columns


NOT_TEXT = "bytes, lists or records"


@dataclass(frozen=True)
class Table:
    """The cells of a table as text.

    Args:
        path: The file.
        columns: The cells of each column, by its name.
        lines: Position of each row, for messages: the first line in a text file, the row number in a Parquet file.
        unit: Unit of `lines`.
        unread: What columns of a Parquet file that are not read have in them, such as bytes, by their names.
    """

    path: Path
    columns: dict[str, list[str]]
    lines: Sequence[int]
    unit: str = "line"
    unread: Mapping[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.lines)

    def where(self, row: int) -> str:
        """Return file and line of a row, for a message."""
        return f"{self.path}, {self.unit} {self.lines[row]}"

    def find_column(self, key: str, name: str | None, usual_names: Sequence[str]) -> str | None:
        """Return the name of a column: the one given in the config, or the first of the usual names that exists.

        Case, spaces and underscores in usual names are ignored.

        Raises:
            InputError: The config names a column that the table does not have.
        """
        if name is not None:
            if name not in self.columns:
                kind = self.unread.get(name)
                state = "has no such column" if kind is None else f"has {kind} in column {name!r}"
                names = f"{self._format_columns()}{did_you_mean(name, self.columns)}"
                raise InputError(f"{key}={name}: {self.path} {state}, but {names}{self.describe_unread()}")
            return name
        by_plain_name = {_plain(column): column for column in reversed(self.columns)}
        by_plain_name |= {column: column for column in self.columns}  # exact names win: `label` over `Label`
        return next((by_plain_name[usual] for usual in usual_names if usual in by_plain_name), None)

    def require_column(self, key: str, name: str | None, usual_names: Sequence[str]) -> str:
        """Return the name of a column as `find_column` does; raise an `InputError` if there is none."""
        found = self.find_column(key, name, usual_names)
        if found is None:
            nearest = nearest_name(usual_names[0], self.columns) or "NAME"
            raise InputError(
                f"{self.path}: no column is named {', '.join(usual_names[:3])} ...; its "
                f"{'first line names' if self.unit == 'line' else 'columns of text are'} {self._format_columns()}; "
                f"choose one with {key}={nearest}{self.describe_unread()}"
            )
        return found

    def describe_unread(self) -> str:
        """Return the end of a message about a missing column: the columns that are not read, and what reads them."""
        if not self.unread:
            return ""
        names = ", ".join(map(repr, self.unread))
        has_images = NOT_TEXT in self.unread.values()
        return f"; not read: {names}{' (not text; data=huggingface reads images inside Parquet files)' * has_images}"

    def _format_columns(self) -> str:
        names = list(map(repr, self.columns))
        return ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")


def read_table(path: Path, key: str) -> Table:
    """Read the cells of a table as text; rows in which all cells are empty are left out.

    Args:
        path: A Parquet file by its name, or a text file with the names of the columns in its first line. Cells are
            separated by commas, semicolons, tabs or bars, and quoted as in CSV; the text is UTF-8, or UTF-16 with a
            byte order mark.
        key: The config key of the path, for messages.

    Raises:
        InputError: The file cannot be read; one line for each problem, with its position in the file.
    """
    if not path.is_file():
        state = "is not a file" if path.exists() else "does not exist"
        raise InputError(f"{key}={path} {state}{similar_file(path)}")
    suffix = path.suffix.lower()
    if suffix in OTHER_FORMATS:
        raise InputError(f"{key}={path}: {suffix} is not supported; save it as .csv, .tsv or .parquet")
    table = _read_parquet(path) if suffix in (".parquet", ".pq") else _read_text(path)
    if not len(table):
        raise InputError(f"{path}: no rows below the header")
    return table


def _plain(name: str) -> str:
    return re.sub(r"[\s_\-]+", "", name).lower()


def _read_text(path: Path) -> Table:
    text = _decode(path)
    header_line = next((line for line in text.splitlines() if line.strip()), "")
    if not header_line:
        raise InputError(f"{path}: an empty file")
    named = EXCEL_DELIMITER.match(header_line)
    delimiter = named[1] if named else max(DELIMITERS, key=lambda mark: _count_cells(header_line, mark))
    rows = _rows(path, text, delimiter)
    if named:
        next(rows)
    _, header = next(rows, (0, []))
    if not header:
        raise InputError(f"{path}: an empty file")
    names = [name.strip() for name in header]
    _refuse_repeated(path, names)
    cells: list[list[str]] = []
    lines: list[int] = []
    problems: list[str] = []
    columns_named = counted(len(names), "column")
    for line, row in rows:
        if len(row) != len(names):
            problems.append(
                f"{path}, line {line}: {counted(len(row), 'cell')}, but the first line names {columns_named}"
            )
        cells.append(row)
        lines.append(line)
    raise_problems(problems)
    columns = [list(column) for column in zip(*cells, strict=True)] or [[] for _ in names]
    return Table(path, dict(zip(names, columns, strict=True)), lines)


def _count_cells(line: str, delimiter: str) -> int:
    try:
        return len(next(csv.reader([line], delimiter=delimiter), ()))
    except csv.Error:  # a cell that is too long
        return 0


def _decode(path: Path) -> str:
    """Return the text of a file; raise an `InputError` with the line of the first byte that is not UTF-8."""
    content = path.read_bytes()
    encoding = next((name for mark, name in BYTE_ORDER_MARKS.items() if content.startswith(mark)), "utf-8")
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        read = error.object  # the bytes without a byte order mark
        line = read.count(b"\n", 0, error.start) + 1
        byte = f"byte 0x{read[error.start]:02x}"
        raise InputError(f"{path}, line {line}: {byte} is not {encoding}: save it as UTF-8 text") from None


def _rows(path: Path, text: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows with at least one cell that is not empty, each with the number of its first line."""
    # Line endings are kept, since a cell in quotes may contain line breaks.
    reader = csv.reader(StringIO(text, newline=""), delimiter=delimiter, strict=True)
    line = 1
    try:
        for row in reader:
            if any(cell.strip() for cell in row):
                yield line, row
            line = reader.line_num + 1
    except csv.Error as error:
        raise InputError(f"{path}, line {line}: {error}: a quote that is not closed, or not doubled?") from None


def _refuse_repeated(path: Path, names: Sequence[str]) -> None:
    """Raise an `InputError` if several columns have the same name."""
    twice = next((name for name in names if names.count(name) > 1 and name), None)
    if twice is not None:
        raise InputError(f"{path}, line 1: two columns are named {twice!r}")


def _read_parquet(path: Path) -> Table:
    if importlib.util.find_spec("pyarrow") is None:
        raise InputError(f"{path}: Parquet files need pyarrow: pip install 'resnet-cli[parquet]'")
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        content = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{path}: cannot be read as Parquet: {reason}") from None
    _refuse_repeated(path, content.column_names)
    columns: dict[str, list[str]] = {}
    unread: dict[str, str] = {}
    for name in content.column_names:
        column = content.column(name)
        kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
        if pa.types.is_nested(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
            unread[name] = NOT_TEXT
            continue
        try:
            columns[name] = ["" if cell is None else str(cell) for cell in column.to_pylist()]
        except (ValueError, ArithmeticError, LookupError, pa.ArrowException):  # times that Python's types cannot hold
            unread[name] = f"values of type {column.type} that Python cannot represent"
    return Table(path, columns, range(1, content.num_rows + 1), "row", unread)
