"""One odd file, read: how it ended."""

from __future__ import annotations

import signal
import traceback
from pathlib import Path

from .readers import Reader

MEMORY = 6 << 30  # bytes that a process may take
# in memory, where the system has such a folder; else in the usual place of temporary files
SCRATCH = "/dev/shm" if Path("/dev/shm").is_dir() else None
_SECONDS = 10


class _TooSlow(BaseException):
    """An input took too long."""


def late(number: int, frame: object) -> None:
    """Interrupt what takes too long: the handler of SIGALRM."""
    raise _TooSlow


def try_one(reader: Reader, folder: Path, name: str, data: bytes) -> str:
    """Read one input; return the kind of finding, or nothing.

    The process must have :func:`late` as its handler of SIGALRM.
    """
    from aape.pipeline.errors import UserError

    file = folder / name
    file.write_bytes(data)
    signal.setitimer(signal.ITIMER_REAL, _SECONDS)
    try:
        reader.read(folder, file)
    except UserError:
        return ""
    except _TooSlow:
        return f"{reader.name}: more than {_SECONDS} s"
    except (Exception, RecursionError, MemoryError) as error:
        places = [
            f for f in traceback.extract_tb(error.__traceback__) if "benchmarks" not in f.filename
        ]
        ours = [f for f in places if "site-packages" not in f.filename and "aape" in f.filename]
        where = (ours or places or traceback.extract_tb(error.__traceback__))[-1]
        return f"{type(error).__name__} in {Path(where.filename).name}:{where.lineno}"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        file.unlink(missing_ok=True)
    return ""
