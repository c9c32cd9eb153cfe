"""Tables as text, however a spreadsheet or another tool wrote them: CSV, TSV, JSON lines, JSON.

What people have is seldom RFC 4180: semicolons, bars, UTF-16, Latin-1, blanks after commas, a
quote that never closes, a bare comma in a cell. Such files are read for what they plainly say; a
cell is a string, so that ``NA``, ``null``, ``yes`` and ``007`` stay names.
"""

from __future__ import annotations

import codecs
import csv
import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...counts import counted
from ...errors import UserError
from ...files import require_document, unreadable
from .western import is_western

DELIMITERS = (",", "\t", ";", "|")
# a quoted cell may run over lines; a quote that is still open after so many is a stray one
MAX_LINES_IN_CELL = 50
_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
# Flickr8k's and Flickr30k's own releases: "1000268201.jpg#0<tab>A child in a pink dress ."
_TOKEN_LINE = re.compile(r"\s*(\S.*\.(?:jpe?g|png|gif|webp|bmp))#\d+\s+(.*)", re.IGNORECASE)


# what Excel obeys, and some programs write for it
_SEPARATOR_LINE = re.compile(r'"?sep=(.)"?[ \t]*', re.IGNORECASE)


@dataclass(frozen=True)
class TextTable:
    """The rows of a table, each a mapping from column to value, and what had to be mended.

    ``label`` is the field of an export from which its labels were taken.
    """

    columns: list[str]
    rows: list[dict[str, Any]]
    remarks: tuple[str, ...] = ()
    label: str = ""


def read_text_table(path: Path) -> TextTable:
    """Read CSV, TSV, JSON lines, JSON (a list of objects) or Flickr's token files.

    Raises:
        UserError: the file is absent, is no text, or is no table.
    """
    suffix = path.suffix.lower()
    text = decode(path)
    if suffix in (".jsonl", ".ndjson"):
        return _of_objects(list(_json_lines(text, path)), path)
    if suffix == ".json":
        value = parse_json(text, path)
        return _of_objects(value if isinstance(value, list) else [value], path)
    first = text.lstrip("\n").partition("\n")[0]
    if _TOKEN_LINE.fullmatch(first):
        return _tokens(text, path)
    return parse_delimited(text, path, "\t" if suffix == ".tsv" else "")


def decode(path: Path) -> str:
    """Return the text of a file: by its byte-order mark, else UTF-8, else Windows' Latin.

    What is none of these, such as GBK or Shift JIS, is refused: names would become nonsense.

    Line ends become ``\\n``.

    Raises:
        UserError: the file cannot be read, is no text, or of another encoding.
    """
    try:
        require_document(path)
        content = path.read_bytes()
    except OSError as error:
        raise unreadable(error, path) from error
    encodings = [name for mark, name in _BYTE_ORDER_MARKS if content.startswith(mark)][:1]
    for encoding in encodings or ["utf-8", "cp1252", "latin-1"]:
        try:
            text = content.decode(encoding)
        except UnicodeDecodeError:
            continue
        if "\0" in text:
            break
        if encoding in ("cp1252", "latin-1") and not is_western(text):
            raise UserError(
                f"{path} is neither UTF-8 nor Western text: its letters would be read wrongly.",
                "Save it as UTF-8 (in a spreadsheet: CSV UTF-8).",
            )
        return text.replace("\r\n", "\n").replace("\r", "\n")
    raise UserError(f"{path} is not a text file.", "Save it as CSV in UTF-8.")


def parse_json(text: str, path: Path) -> Any:
    """Parse one JSON document.

    Raises:
        UserError: it is none.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not valid JSON: {error}.") from error


def read_json_text(path: Path) -> Any:
    """Read a JSON file of a stranger in any encoding that :func:`decode` knows.

    Raises:
        UserError: it cannot be read or is not JSON.
    """
    try:
        text = decode(path)
    except UserError as error:
        if not path.is_file():
            raise
        raise UserError(f"{path} is not valid JSON: it is no text.") from error
    return parse_json(text, path)


def _json_lines(text: str, path: Path) -> Iterator[Any]:
    # one line at a time by the standard library: readers of whole columns want one type a column
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                yield json.loads(line)
            except (ValueError, RecursionError) as error:
                raise UserError(f"Line {number} of {path} is not valid JSON: {error}.") from error


def _of_objects(values: list[Any], path: Path) -> TextTable:
    for number, value in enumerate(values, 1):
        if not isinstance(value, dict):
            raise UserError(f"Entry {number} of {path} is not an object with columns as keys.")
    columns = list(dict.fromkeys(str(key).strip() for value in values for key in value))
    rows = [{str(key).strip(): cell for key, cell in value.items()} for value in values]
    return TextTable(columns, rows)


def _tokens(text: str, path: Path) -> TextTable:
    found = [_TOKEN_LINE.fullmatch(line) for line in text.split("\n") if line.strip()]
    rows = [{"image": m.group(1), "caption": m.group(2).strip()} for m in found if m is not None]
    odd = len(found) - len(rows)
    remarks = (f"{path.name}: {odd:,} lines name no photo and were left out",) if odd else ()
    return TextTable(["image", "caption"], rows, remarks)


def parse_delimited(text: str, path: Path, delimiter: str = "") -> TextTable:
    """Parse a table with a header; ``delimiter`` is the likeliest, others are tried too.

    A row with more cells than the header has bare delimiters in its last cell, which is joined
    again; a shorter row lacks its last cells. Both are counted in the remarks. A first line
    ``sep=;`` says the delimiter.

    Raises:
        UserError: there is no header, or it names a column twice.
    """
    lines = text.strip("\n").split("\n")
    said = _SEPARATOR_LINE.fullmatch(lines[0])
    if said:
        lines = lines[1:]
    delimiter = said.group(1) if said else _choose_delimiter(lines, delimiter)
    records = [record for record in _records(lines, delimiter) if any(record)]
    if not records:
        raise UserError(f"{path} is empty.")
    header = [name.strip() for name in records[0]]
    while len(header) > 1 and not header[-1]:
        header.pop()
    twice = [name for name, n in Counter(header).items() if n > 1 and name]
    if twice:
        raise UserError(f"{path} has two columns named {twice[0]!r}.", "Rename one of them.")
    rows, long, short = [], 0, 0
    for record in records[1:]:
        while len(record) > len(header) and not record[-1]:
            record.pop()
        long += len(record) > len(header)
        short += len(record) < len(header)
        if len(record) > len(header):
            last = len(header) - 1
            # a bare comma in running text was followed by a blank, which the parser took away
            joint = f"{delimiter} " if delimiter == "," else delimiter
            record[last:] = [joint.join(record[last:])]
        rows.append(dict(zip(header, record + [""] * (len(header) - len(record)))))
    remarks = []
    if long:
        remarks.append(
            f"{path.name}: {counted(long, 'row has', 'rows have')} more cells than the header;"
            f" the rest went into {header[-1]!r}"
        )
    if short:
        what = counted(short, "row has", "rows have")
        remarks.append(f"{path.name}: {what} fewer cells than the header")
    return TextTable(header, rows, tuple(remarks))


def _choose_delimiter(lines: list[str], likeliest: str) -> str:
    """Return what splits most of the first lines into as many cells as the header."""
    sample = [line for line in lines[:200] if line.strip()][:100]
    best, best_score = likeliest or ",", (0.0, 0)
    for delimiter in dict.fromkeys([likeliest or ",", *DELIMITERS]):
        widths = [len(_split_line(line, delimiter)) for line in sample]
        if not widths or widths[0] < 2:
            continue
        fit = sum(width == widths[0] for width in widths[1:]) / max(1, len(widths) - 1)
        if (fit, widths[0]) > best_score:
            best, best_score = delimiter, (fit, widths[0])
    return best


def _strict(lines: list[str], delimiter: str) -> list[list[str]] | None:
    """Parse whole lines by the rules of CSV, or return None where they break them."""
    csv.field_size_limit(1 << 24)
    try:
        reader = csv.reader(lines, delimiter=delimiter, strict=True, skipinitialspace=True)
        return [[cell.strip() for cell in record] for record in reader]
    except csv.Error:
        return None


def _split_line(line: str, delimiter: str) -> list[str]:
    """Split one line; quotes that break the rules of CSV are taken for stray ones."""
    parsed = _strict([line], delimiter)
    if parsed is not None:
        return parsed[0] if parsed else []
    return [_unquoted(cell.strip()) for cell in line.split(delimiter)]


def _unquoted(cell: str) -> str:
    if len(cell) > 1 and cell[0] == cell[-1] == '"':
        return cell[1:-1].replace('""', '"')
    return cell[1:] if cell.startswith('"') and cell.count('"') == 1 else cell


def _records(lines: list[str], delimiter: str) -> Iterator[list[str]]:
    """Yield the cells of every record; a quoted cell may run over several lines."""
    width = len(_split_line(lines[0], delimiter)) if lines else 0
    at = 0
    while at < len(lines):
        line = lines[at]
        at += 1
        if '"' not in line:
            yield [cell.strip() for cell in line.split(delimiter)]
            continue
        record = _strict([line], delimiter)
        if record is None and line.count('"') % 2:
            # more lines until the quote closes and the cells are as many as the header's
            for end in range(at + 1, min(at + MAX_LINES_IN_CELL, len(lines)) + 1):
                if '"' not in lines[end - 1]:
                    continue
                joined = _strict(["\n".join(lines[at - 1 : end])], delimiter)
                if joined is not None and len(joined) == 1 and len(joined[0]) == width:
                    record, at = joined, end
                    break
        yield record[0] if record else _split_line(line, delimiter)
