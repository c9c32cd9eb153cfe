"""The disturbances: what is done to a command while it runs, or to what it left.

Most strike at a file operation: Python's audit hook counts every file that is opened, renamed,
removed or made, and the n-th is the moment. Others strike at a random time.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .rooms import PAGE, Room

_OPERATIONS = frozenset(
    ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.link",
     "os.symlink", "os.chmod", "shutil.rmtree", "shutil.move", "shutil.copyfile", "os.scandir",
     "os.listdir")
)  # fmt: skip


def at_operation(number: int, room: Room, strike: Callable[[], None]) -> None:
    """Call ``strike`` once, just before the n-th file operation in the room (from 0)."""
    place, count = str(room.place), iter(range(1 << 60))

    def hook(event: str, words: tuple[Any, ...]) -> None:
        if event in _OPERATIONS and _inside(words, place) and next(count) == number:
            strike()

    sys.addaudithook(hook)


def count_operations(room: Room, report: int) -> None:
    """Write one byte into the file descriptor ``report`` for every file operation in the room."""
    place = str(room.place)

    def hook(event: str, words: tuple[Any, ...]) -> None:
        if event in _OPERATIONS and _inside(words, place):
            os.write(report, b".")

    sys.addaudithook(hook)


def _inside(words: tuple[Any, ...], place: str) -> bool:
    """Say whether an operation is about the room; names that are not absolute are."""
    name = words[0] if words else ""
    if isinstance(name, bytes):
        name = os.fsdecode(name)
    if not isinstance(name, str | os.PathLike):
        return False
    text = os.fspath(name)
    return not str(text).startswith("/") or str(text).startswith(place)


@dataclass(frozen=True)
class Moment:
    """When it strikes: at an operation, or after a share of the usual time."""

    operation: int | None
    share: float

    def __str__(self) -> str:
        if self.operation is not None:
            return f"at file operation {self.operation}"
        return f"after {self.share:.3f} of the usual time"


def random_moment(source: random.Random, operations: int) -> Moment:
    """Three of four strike at an operation."""
    if source.random() < 0.75:
        return Moment(source.randrange(operations), 0.0)
    return Moment(None, source.random())


def clock_back(seconds: float) -> None:
    """Let the clock of this process be behind, as after a wrong time was set right."""
    now, now_ns = time.time, time.time_ns
    time.time = lambda: now() - seconds
    time.time_ns = lambda: now_ns() - int(seconds * 1e9)


def files_from_the_future(place: Path, seconds: float) -> None:
    """Let all files be younger than the clock: the same, seen from the files."""
    when = time.time() + seconds
    for path in place.rglob("*"):
        os.utime(path, (when, when))


def full_at(room: Room, free: int) -> Callable[[], None]:
    """Return what leaves so many bytes free on the disk of the room."""

    def strike() -> None:
        pages = (room.used() + free) // PAGE if room.own_disk else free // PAGE
        room.limit(max(pages, 1) * PAGE)

    return strike


def kill_self(number: int) -> Callable[[], None]:
    """Return what sends this process a signal."""
    return lambda: os.kill(os.getpid(), number)


STOPPED = {signal.SIGINT: 130, signal.SIGTERM: 143}


# --- bits ---


def damage(path: Path, source: random.Random) -> str:
    """Flip a bit, cut the end off, or zero a piece; say what was done. Empty where it cannot be."""
    data = bytearray(path.read_bytes())
    if not data:
        return ""
    kind, place = source.random(), source.randrange(len(data))
    if kind < 0.7:
        bit = 1 << source.randrange(8)
        data[place] ^= bit
        what = f"bit {bit} of byte {place} flipped"
    elif kind < 0.85:
        del data[place:]
        what = f"cut to {place} bytes"
    else:
        end = min(len(data), place + source.choice((8, 512, 4096)))
        if not any(data[place:end]):
            return ""
        data[place:end] = bytes(end - place)
        what = f"bytes {place} to {end} zeroed"
    before = path.stat()
    path.write_bytes(bytes(data))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))  # as a failing disk does it
    return what


# --- servers ---


def lies() -> dict[str, Callable[[Any, dict[str, Any]], None]]:
    """What a server may do instead of answering, by name."""
    import gzip
    import json

    from .world import honest, send

    def body(value: Any, **headers: str) -> Callable[[Any, dict[str, Any]], None]:
        raw = value if isinstance(value, bytes) else json.dumps(value).encode()
        return lambda handler, request: send(handler, raw, **headers)

    def status(number: int, **headers: str) -> Callable[[Any, dict[str, Any]], None]:
        raw = b'{"error": {"message": "no\\u001b[31m"}}'
        return lambda handler, request: send(handler, raw, number, **headers)

    def changed(change: Callable[[dict[str, Any]], None]) -> Callable[[Any, dict[str, Any]], None]:
        def answer(handler: Any, request: dict[str, Any]) -> None:
            reply = json.loads(honest(request))
            change(reply)
            send(handler, json.dumps(reply).encode())

        return answer

    def hang(handler: Any, request: dict[str, Any]) -> None:
        time.sleep(4.0)

    def cut(handler: Any, request: dict[str, Any]) -> None:
        handler.send_response(200)
        handler.send_header("content-length", "1000")
        handler.end_headers()
        handler.wfile.write(b'{"choices": [')
        handler.close_connection = True

    def drip(handler: Any, request: dict[str, Any]) -> None:
        handler.send_response(200)
        handler.send_header("content-length", "1000")
        handler.end_headers()
        for _ in range(40):
            handler.wfile.write(b" ")
            handler.wfile.flush()
            time.sleep(0.1)

    def choice(**values: Any) -> Callable[[Any, dict[str, Any]], None]:
        return changed(lambda reply: reply["choices"][0].update(values))

    def message(**values: Any) -> Callable[[Any, dict[str, Any]], None]:
        return changed(lambda reply: reply["choices"][0]["message"].update(values))

    bomb = gzip.compress(b" " * (64 << 20))
    return {
        "hangs": hang,
        "cuts the line": cut,
        "drips": drip,
        "nothing": body(b""),
        "HTML": body(b"<html>busy</html>", content_type="text/html"),
        "null": body(None),
        "a list": body([1, 2]),
        "no choices": body({"choices": []}),
        "choices null": body({"choices": None}),
        "choices a number": body({"choices": 7}),
        "a million brackets": body(b"[" * 1_000_000),
        "no UTF-8": body(b"\xff\xfe\x00{"),
        "a bomb of gzip": body(bomb, content_encoding="gzip"),
        "gzip that is none": body(b"{}", content_encoding="gzip"),
        "content null": message(content=None),
        "content a number": message(content=12),
        "message null": choice(message=None),
        "a reason of odd type": choice(finish_reason={"a": 1}),
        "a reason of a mile": choice(finish_reason="x" * 100_000),
        "usage a word": changed(lambda reply: reply.update(usage="many")),
        "usage negative": changed(lambda reply: reply.update(usage={"completion_tokens": -5})),
        "usage NaN": changed(lambda reply: reply.update(usage={"completion_tokens": float("nan")})),
        "usage endless": changed(lambda reply: reply.update(usage={"completion_tokens": 1e999})),
        "status 500": status(500),
        "status 429 for a year": status(429, retry_after="31536000"),
        "status 429 for NaN": status(429, retry_after="nan"),
        "status 401": status(401),
        "status 404": status(404),
        "status 302": status(302, location="http://127.0.0.1:9/v1"),
        "status 400": status(400),
        "status 999": status(999),
    }  # fmt: skip
