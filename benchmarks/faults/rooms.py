"""A room for one disturbance: a small disk of its own, and processes that start in a moment.

The room is a tmpfs in a mount namespace of its own, where the system allows that (root, or user
namespaces): its size can be set and it can be made read-only while a command writes. Elsewhere it
is a plain folder, and the disk is full by the limit on the size of a file.
"""

from __future__ import annotations

import ctypes
import os
import resource
import select
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_NEW_MOUNTS, _NEW_USER = 0x00020000, 0x10000000
_READ_ONLY, _REMOUNT, _BIND, _RECURSIVE, _PRIVATE = 1, 32, 4096, 16384, 1 << 18
PAGE = 4096
LARGE = 64 << 20
TIME_LIMIT = 120.0
_libc = ctypes.CDLL(None, use_errno=True)


def _mount(source: str, target: str, kind: str, flags: int, data: str = "") -> bool:
    words = [word.encode() for word in (source, target, kind)]
    return _libc.mount(*words, ctypes.c_ulong(flags), data.encode()) == 0


def enter_namespace() -> bool:
    """Take this process into mounts of its own; say whether that is allowed here."""
    if not hasattr(_libc, "unshare"):
        return False
    user, group = os.getuid(), os.getgid()
    if _libc.unshare(_NEW_MOUNTS if user == 0 else _NEW_MOUNTS | _NEW_USER) != 0:
        return False
    if user != 0:
        try:
            Path("/proc/self/setgroups").write_text("deny")
            Path("/proc/self/uid_map").write_text(f"0 {user} 1")
            Path("/proc/self/gid_map").write_text(f"0 {group} 1")
        except OSError:
            return False
    return _mount("none", "/", "", _RECURSIVE | _PRIVATE)


@dataclass
class Room:
    """The folder ``place``; ``own_disk`` says that it is a tmpfs of its own."""

    place: Path
    own_disk: bool

    @classmethod
    def enter(cls, place: Path) -> Room:
        """Make the room, in this process and those that it forks. Call it in a forked process."""
        place.mkdir(parents=True, exist_ok=True)
        room = cls(place, enter_namespace())
        room.own_disk = room.own_disk and room._mount_empty()
        room.clear()
        return room

    def _mount_empty(self) -> bool:
        return _mount("tmpfs", str(self.place), "tmpfs", 0, f"size={LARGE}")

    def clear(self) -> None:
        """Empty it for the next command."""
        if self.own_disk:
            _libc.umount2(str(self.place).encode(), 2)
            self._mount_empty()
        else:
            shutil.rmtree(self.place)
            self.place.mkdir()

    def used(self) -> int:
        """Bytes on the disk of the room, in whole pages."""
        if self.own_disk:
            disk = os.statvfs(self.place)
            return (disk.f_blocks - disk.f_bfree) * disk.f_frsize
        return sum(path.stat().st_size for path in self.place.rglob("*") if path.is_file())

    def limit(self, size: int) -> bool:
        """Set the size of the disk. Without a disk of its own, that of a file of this process."""
        if self.own_disk:
            return _mount("tmpfs", str(self.place), "tmpfs", _REMOUNT, f"size={size}")
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        return True

    def read_only(self, folder: Path | None = None) -> bool:
        """Let nothing be written to a folder, by default to the whole room."""
        if not self.own_disk:
            return False
        if folder is None:
            return _mount("tmpfs", str(self.place), "tmpfs", _REMOUNT | _READ_ONLY)
        name = str(folder)
        _mount(name, name, "", _BIND)
        return _mount(name, name, "", _BIND | _REMOUNT | _READ_ONLY)

    def writable(self, folder: Path | None = None) -> None:
        """Undo :meth:`read_only` and :meth:`limit`."""
        if folder is not None:
            _libc.umount2(str(folder).encode(), 2)
        elif self.own_disk:
            _mount("tmpfs", str(self.place), "tmpfs", _REMOUNT, f"size={LARGE}")
        else:
            resource.setrlimit(
                resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
            )


@dataclass
class Ended:
    """How a command ended: status (negative: the signal), standard output and error, seconds."""

    status: int
    printed: str
    said: str
    seconds: float
    hung: bool = False


class Running:
    """A command line in a forked child, which needs no start of Python and no imports."""

    def __init__(self, words: Sequence[str], room: Room, before: Callable[[], None]) -> None:
        """Start it. ``before`` runs in the child, just before the command."""
        self._outputs = [os.memfd_create(name) for name in ("printed", "said")]
        self._start = time.monotonic()
        ready, go = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:

            def begin() -> None:
                before()
                os.write(go, b"!")

            _child(words, room, begin, self._outputs)
        os.close(go)
        os.read(ready, 1)  # signals before the program has begun would not be its own
        os.close(ready)
        self._handle = os.pidfd_open(self.pid)

    def seconds(self) -> float:
        """Since the start."""
        return time.monotonic() - self._start

    def wait(self, seconds: float) -> bool:
        """Wait so long at most; say whether it has ended."""
        return bool(select.select([self._handle], [], [], max(0.0, seconds))[0])

    def kill(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        signal.pidfd_send_signal(self._handle, number)

    def workers(self) -> list[int]:
        """Processes that it has started, but the one of Python that keeps count of semaphores."""
        path = Path(f"/proc/{self.pid}/task/{self.pid}/children")
        children = [int(pid) for pid in path.read_text().split()] if path.exists() else []
        return [pid for pid in children if b"resource_tracker" not in _words_of(pid)]

    def end(self) -> Ended:
        """Wait for the end; after :data:`TIME_LIMIT` it counts as hung. Children go with it."""
        hung = not self.wait(TIME_LIMIT)
        if hung:
            self.kill(signal.SIGKILL)
        _, status = os.waitpid(self.pid, 0)
        seconds = self.seconds()
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        os.close(self._handle)
        printed, said = map(_taken, self._outputs)
        return Ended(os.waitstatus_to_exitcode(status), printed, said, seconds, hung)


def _taken(output: int) -> str:
    text = os.pread(output, os.lseek(output, 0, os.SEEK_END), 0).decode("utf-8", "replace")
    os.close(output)
    return text


def _words_of(pid: int) -> bytes:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""


def _child(
    words: Sequence[str], room: Room, before: Callable[[], None], outputs: Sequence[int]
) -> None:
    status = 1
    try:
        os.setpgid(0, 0)
        os.dup2(outputs[0], 1)
        os.dup2(outputs[1], 2)
        os.chdir(room.place)
        os.environ["AAPE_HOME"] = str(room.place / "home")
        sys.argv = ["aape", *words]
        before()
        status = _main(words)
    except KeyboardInterrupt:  # before the program began, or after its end: as the system does
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _main(words: Sequence[str]) -> int:
    from aape.cli import main

    try:
        main(list(words))
    except SystemExit as end:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        threading._shutdown()  # what waits at the end of a program, waits here # type: ignore
        return end.code if isinstance(end.code, int) else 1
    except BaseException:
        import traceback

        traceback.print_exc()
    return 1
