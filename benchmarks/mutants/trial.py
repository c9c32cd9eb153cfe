"""One run of some tests with a changed module, in a fork of this process.

The parent imports what others wrote (torch takes seconds) and nothing of ``aape``; a child imports
the package with one module changed, runs the tests up to the first failure, and is gone.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.machinery
import json
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

QUICK, LONG = "not slow and not long", "not slow and long"
_MEMORY = 12 << 30  # of addresses: libraries map more than they use
ROOT = Path(__file__).resolve().parents[2]


def trial(
    tests: Sequence[str],
    seconds: float,
    changed: tuple[Path, str] | None = None,
    *,
    marked: str = QUICK,
    modules: Path | None = None,
    log: Path | None = None,
) -> tuple[str, float]:
    """Return ``passed``, ``failed`` or ``late``, and the seconds it took.

    Args:
        tests: arguments of pytest that choose the tests.
        seconds: after so many the child is ended.
        changed: file of a module and the text to import instead.
        marked: which of the tests, by their markers.
        modules: where the child writes which modules of others it had imported.
        log: where what the tests print goes; nowhere by default.
    """
    room = Path(tempfile.mkdtemp(prefix="mutant-"))
    start = time.monotonic()
    pid = os.fork()
    if pid == 0:
        _child(["-m", marked, *tests], changed, modules, log, room)
    try:
        while time.monotonic() - start < seconds:
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                code = os.waitstatus_to_exitcode(status)
                # where no test is marked so, none has noticed
                ended = "passed" if code in (0, pytest.ExitCode.NO_TESTS_COLLECTED) else "failed"
                return ended, time.monotonic() - start
            time.sleep(0.02)
        return "late", time.monotonic() - start
    finally:
        with contextlib.suppress(ProcessLookupError):  # also what the child has started
            os.killpg(pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, 0)
        shutil.rmtree(room, ignore_errors=True)


def import_others(modules: Path) -> None:
    """Import here what a child had imported, so that later children find it."""
    for name in json.loads(modules.read_text(encoding="utf-8")):
        with contextlib.suppress(Exception):
            importlib.import_module(name)
    if any(name.startswith("aape.") for name in sys.modules):
        raise RuntimeError("a module of aape is imported where only those of others may be")


def _of_others() -> list[str]:
    """Return the imported modules that lie outside this repository; nothing of theirs needs us."""
    found = []
    for name, module in sys.modules.items():
        file = getattr(module, "__file__", None)
        inside = file is not None and Path(file).is_relative_to(ROOT) and ".venv" not in file
        if name != "__main__" and not inside and not name.startswith("aape"):
            found.append(name)
    return found


def _child(
    tests: Sequence[str],
    changed: tuple[Path, str] | None,
    modules: Path | None,
    log: Path | None,
    room: Path,
) -> None:
    status = 3
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.setsid()
        place = os.open(log or os.devnull, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(place, 1)
        os.dup2(place, 2)
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        os.environ["HYPOTHESIS_STORAGE_DIRECTORY"] = str(room / "hypothesis")
        if changed is not None:
            _import_instead(*changed)
        options = ["-x", "-q", "-p", "no:cacheprovider"]
        options += ["--hypothesis-seed=0", f"--basetemp={room / 'tests'}"]
        status = int(pytest.main([*options, *tests]))
        if modules is not None:
            modules.write_text(json.dumps(_of_others()), encoding="utf-8")
        sys.stdout.flush()
    finally:
        os._exit(status)


def _import_instead(path: Path, text: str) -> None:
    """Let the import of one file find another text; nothing is written, no cache is read."""
    usual = importlib.machinery.SourceFileLoader.get_code
    wanted = str(path.resolve())

    def get_code(self: importlib.machinery.SourceFileLoader, fullname: str):
        if str(Path(self.path).resolve()) == wanted:
            return compile(text, self.path, "exec", dont_inherit=True)
        return usual(self, fullname)

    importlib.machinery.SourceFileLoader.get_code = get_code  # type: ignore[method-assign]
