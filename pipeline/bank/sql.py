"""SQL over a bank, by DuckDB, in a closed room: no files, no network, no writing.

Two views: ``bank``, one row a prompt with every column (``embedding`` as ``FLOAT[d]``, so that
``array_cosine_similarity`` works), and ``classes``, one row a class.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.dataset as ds

from ..errors import UserError, require_text
from .schema import COLUMNS

if TYPE_CHECKING:
    import duckdb

    from .bank import PromptBank

_MEMORY = "2GB"
_MOST_BYTES = 2_000_000_000  # of a result
# beside what DuckDB counts: what Arrow decodes ahead, and lists and texts of one step
_UNCOUNTED = 2_000_000_000
_SECONDS = 120.0
_MOST_ROWS = 1_000_000
_BATCH = 10_000  # rows at a time
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

    require_text(query, "The query")
    bank.require_unchanged()
    bank.require_columns()
    with _closed_room(bank) as connection, _stopped_after(_SECONDS, connection):
        try:
            statements = connection.extract_statements(query)
            if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
                raise UserError("Only a single SELECT can be run: a bank is read-only.", VIEWS)
            # As Arrow, not as Python objects: those would need pytz for the time column.
            reader = connection.sql(query).to_arrow_reader(_BATCH)
            return _limited(reader)
        except duckdb.InterruptException as error:
            raise UserError(
                f"The query was stopped after {_SECONDS:.0f} seconds.",
                "Ask for less: narrow it with WHERE, or take out a join without a condition.",
            ) from error
        except (duckdb.OutOfMemoryException, MemoryError, pa.ArrowMemoryError) as error:
            raise _too_large() from error
        except duckdb.Error as error:
            first = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
            raise UserError(f"The query failed: {first.rstrip('.')}.", VIEWS) from error
        except OSError as error:
            if "Arrow Appender" in str(error):  # texts of one batch that no array holds
                raise _too_large() from error
            # a page that does not have its checksum
            raise UserError(
                f"The bank {bank.path} could not be read: {error}.",
                f"Look at it with: aape bank verify {bank.path}",
            ) from error


def rows_of(result: pa.Table) -> list[dict[str, Any]]:
    """Return the rows of a result as Python's own values.

    Raises:
        UserError: a date is beyond those that Python has, the years 1 to 9999.
    """
    try:
        return result.to_pylist()
    except (OverflowError, ValueError) as error:
        raise UserError(
            "The result has a date before the year 1 or after 9999, or one without end.",
            "Ask for it as text: CAST(… AS VARCHAR).",
        ) from error


def _too_large() -> UserError:
    return UserError(
        f"The query needs more than {_MEMORY} of memory.",
        "Ask for fewer rows or columns: embedding is the largest.",
    )


def _limited(reader: pa.RecordBatchReader) -> pa.Table:
    """Collect a result, with columns of one name told apart, up to a million rows."""
    batches, rows, size = [], 0, 0
    for batch in reader:
        rows += batch.num_rows
        size += batch.nbytes
        if size > _MOST_BYTES:
            raise _too_large()
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


@contextmanager
def bounded_memory() -> Iterator[None]:
    """Let this process have 4 GB more and no others, where the system (Linux) can.

    DuckDB counts what it keeps from one step to the next, and not, for instance, the list that
    ``range(1000000000)`` makes: the system refuses it, and DuckDB says so as of its own limit.
    All threads share the limit, so a process that does other work beside must not ask for it.
    """
    size = _MOST_BYTES + _UNCOUNTED
    if sys.platform != "linux":
        yield
        return
    import resource

    status = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    used = next((int(line.split()[1]) << 10 for line in status if line.startswith("VmData:")), None)
    before = resource.getrlimit(resource.RLIMIT_DATA)
    bounds = [limit for limit in before if limit != resource.RLIM_INFINITY]
    if used is None or any(limit < used + size for limit in bounds):  # tight enough as it is
        yield
        return
    resource.setrlimit(resource.RLIMIT_DATA, (used + size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)


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
