"""SQL over a bank, by DuckDB, in a closed room: no files, no network, no writing.

Two views: ``bank``, one row a prompt with every column (``embedding`` as ``FLOAT[d]``, so that
``array_cosine_similarity`` works), and ``classes``, one row a class.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.dataset as ds

from ..errors import UserError
from .schema import COLUMNS

if TYPE_CHECKING:
    import duckdb

    from .bank import PromptBank

_MEMORY = "2GB"
_SECONDS = 120.0
_MOST_ROWS = 1_000_000
VIEWS = (
    f"Views: bank ({', '.join(COLUMNS)}, embedding),"
    " classes (dataset, class_id, class_name, rows, kept)."
)


def run_sql(bank: PromptBank, query: str) -> pa.Table:
    """Run one SELECT over the bank and return its result.

    The database reads the bank's columns through Arrow, only those that the query names, and can
    reach nothing else: external access is off and the configuration is locked.

    Raises:
        UserError: the query is not a single SELECT, DuckDB refuses it, or it needs more than two
            minutes, 2 GB of memory or a million rows.
    """
    import duckdb

    bank.require_unchanged()
    with _closed_room(bank) as connection, _stopped_after(_SECONDS, connection):
        try:
            statements = connection.extract_statements(query)
            if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
                raise UserError("Only a single SELECT can be run: a bank is read-only.", VIEWS)
            # As Arrow, not as Python objects: those would need pytz for the time column.
            reader = connection.sql(query).to_arrow_reader(100_000)
            return _limited(reader)
        except duckdb.InterruptException as error:
            raise UserError(
                f"The query was stopped after {_SECONDS:.0f} seconds.",
                "Ask for less: narrow it with WHERE, or take out a join without a condition.",
            ) from error
        except duckdb.OutOfMemoryException as error:
            raise UserError(
                f"The query needs more than {_MEMORY} of memory.",
                "Ask for fewer rows or columns: embedding is the largest.",
            ) from error
        except duckdb.Error as error:
            first = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
            raise UserError(f"The query failed: {first.rstrip('.')}.", VIEWS) from error
        except OSError as error:  # a page that does not have its checksum
            raise UserError(
                f"The bank {bank.path} could not be read: {error}.",
                f"Look at it with: aape bank verify {bank.path}",
            ) from error


def _limited(reader: pa.RecordBatchReader) -> pa.Table:
    """Collect a result, with columns of one name told apart, up to a million rows."""
    batches, rows = [], 0
    for batch in reader:
        rows += batch.num_rows
        if rows > _MOST_ROWS:
            raise UserError(
                f"The query has more than {_MOST_ROWS:,} rows.", "Add a LIMIT, or count them."
            )
        batches.append(batch)
    table = pa.Table.from_batches(batches, reader.schema)
    taken: set[str] = set()
    names = []
    for name in table.column_names:
        free, number = name, 2
        while free in taken:
            free, number = f"{name}_{number}", number + 1
        taken.add(free)
        names.append(free)
    return table.rename_columns(names)


@contextmanager
def _stopped_after(seconds: float, connection: duckdb.DuckDBPyConnection) -> Iterator[None]:
    timer = threading.Timer(seconds, connection.interrupt)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _closed_room(bank: PromptBank) -> duckdb.DuckDBPyConnection:
    import duckdb

    connection = duckdb.connect(
        ":memory:",
        config={
            "python_enable_replacements": "false",  # a query must not see Python variables
            "autoinstall_known_extensions": "false",
            "autoload_known_extensions": "false",
            "allow_community_extensions": "false",
            "temp_directory": "",
            "memory_limit": _MEMORY,
        },
    )
    # buffered ahead, a whole file's column chunks would stay until its end (apache/arrow#39808)
    reading = ds.ParquetFragmentScanOptions(
        page_checksum_verification=True, pre_buffer=False, use_buffered_stream=True
    )
    rows = ds.dataset(
        [str(file.path) for file in bank.files],
        format=ds.ParquetFileFormat(default_fragment_scan_options=reading),
    )
    connection.register("_rows", rows)
    connection.register("classes", _classes(bank))
    dim = bank.metadata.dim
    # a number is put in, never a text
    view = f"SELECT * REPLACE (embedding::FLOAT[{int(dim)}] AS embedding) FROM _rows"  # nosec B608
    connection.execute(f"CREATE VIEW bank AS {view}")
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")
    return connection


def _classes(bank: PromptBank) -> pa.Table:
    """One row for every class of every data set, also those without prompts."""
    rows = []
    for part in bank.metadata.datasets:
        for class_id, name in enumerate(part.class_names):
            entry = bank.class_rows(class_id, part.dataset)
            rows.append((part.dataset, class_id, name, entry.rows, entry.kept))
    kinds = [pa.string(), pa.int32(), pa.string(), pa.int64(), pa.int64()]
    names = ["dataset", "class_id", "class_name", "rows", "kept"]
    columns = list(zip(*rows, strict=True)) if rows else [[] for _ in names]
    arrays = [pa.array(column, kind) for column, kind in zip(columns, kinds, strict=True)]
    return pa.table(dict(zip(names, arrays, strict=True)))
