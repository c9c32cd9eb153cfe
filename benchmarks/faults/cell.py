"""One injection: a command is disturbed, then typed again, and must end as if nothing had been."""

from __future__ import annotations

import multiprocessing
import os
import random
import shutil
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import injections, world
from .commands import Command
from .injections import STOPPED, Moment
from .outcome import leftovers, outcome, printed
from .rooms import PAGE, Ended, Room, Running

_REFUSED = (0, 2)
_DAY = 86400.0
_FOR_PEOPLE = (".lock", ".tex", ".md", ".csv", ".html")  # nothing of ours reads them again


@dataclass
class Known:
    """What an undisturbed run of a command showed."""

    command: Command
    before: Path
    after: Path
    outcome: dict[str, str] = field(default_factory=dict)
    read: dict[str, str] = field(default_factory=dict)
    """The outcome once the readers have run, too: some of them write."""
    printed: list[str] = field(default_factory=list)
    seconds: float = 1.0
    operations: int = 1
    growth: int = PAGE


@dataclass
class Verdict:
    """What came of one injection; ``problem`` is empty where it was survived."""

    number: int
    command: str
    kind: str
    detail: str
    problem: str = ""
    said: str = ""


class Cell:
    """The room of one injection, filled with what the command needs."""

    def __init__(self, known: Known, room: Room, source: random.Random, full: bool = False) -> None:
        self.known, self.room, self.source = known, room, source
        self.server = 0
        self.port = 0
        self.timeout = "20"
        _copy(known.after if full else known.before, room.place)

    def serve(self, lie: Any = None) -> None:
        """Start the server of answers, if the command asks one; the port stays the same."""
        self.stop()
        if self.known.command.asks:
            self.server, self.port = world.serve(self.port, lie)

    def stop(self) -> None:
        """End the server."""
        if self.server:
            os.kill(self.server, signal.SIGKILL)
            os.waitpid(self.server, 0)
        self.server = 0

    def start(self, before: Callable[[], None] | None = None, words: Sequence[str] = ()) -> Running:
        """Start the command, or another, with ``before`` in its process."""

        def prepare() -> None:
            if self.known.command.workers:
                fork_workers()
            if before is not None:
                before()

        address = f"http://127.0.0.1:{self.port}/v1"
        line = [
            word.format(server=address, timeout=self.timeout)
            for word in words or self.known.command.words
        ]
        return Running(line, self.room, prepare)

    def strike(self, moment: Moment, blow: Callable[[], None], outside: int = 0) -> Ended:
        """Run the command; strike inside of it at an operation, or from outside after a time."""
        if moment.operation is not None:
            number = moment.operation
            return self.start(lambda: injections.at_operation(number, self.room, blow)).end()
        running = self.start()
        running.wait(moment.share * self.known.seconds)
        if outside:
            running.kill(outside)
        else:
            blow()
        return running.end()

    def again(self, before: Callable[[], None] | None = None) -> tuple[str, str]:
        """Type the command again; return what is wrong with what it left, and what it said."""
        ended = self.start(before).end()
        # a command that had finished may refuse to write over what it made
        wrong = judge(ended, _REFUSED) or self.differs()
        if wrong and ended.status == 2:
            wrong = f"it refuses: {ended.said.strip().splitlines()[-1][:200]}"
        if not wrong and (left := leftovers(self.room.place)):
            wrong = f"left behind: {', '.join(left[:3])}"
        return wrong and f"typed again: {wrong}", ended.said

    def differs(self, read: bool = False) -> str:
        """Say which files are not those of the undisturbed run, or of that and its readers."""
        found, known = outcome(self.room.place), self.known.read if read else self.known.outcome
        wrong = [name for name in {**known, **found} if found.get(name) != known.get(name)]
        return f"other results in {', '.join(sorted(wrong)[:4])}" if wrong else ""


def judge(ended: Ended, allowed: Sequence[int]) -> str:
    """Say what is wrong with an end: a traceback, another status, no sentence."""
    if ended.hung:
        return "it hung"
    if "Traceback (most recent call last)" in ended.said:
        return f"traceback: {ended.said.strip().splitlines()[-1][:200]}"
    if ended.status not in allowed:
        return f"status {ended.status}"
    if ended.status == 2 and "aape: " not in ended.said:
        return "status 2 without a sentence"
    if ended.status in (130, 143) and "Run the same command again" not in ended.said:
        return f"status {ended.status} without a word"
    return ""


def _copy(source: Path, place: Path) -> None:
    shutil.copytree(source, place, dirs_exist_ok=True)


def fork_workers() -> None:
    """Fork the workers that a command would start anew: nothing has run in parallel here."""
    context = multiprocessing.get_context("fork")
    multiprocessing.get_context = lambda method=None: context  # type: ignore[assignment]


# --- the kinds: each strikes, judges the end, and types the command again ---

Kind = Callable[[Cell], tuple[str, str, str]]  # detail, problem, said


def _stopped_by(number: int) -> Kind:
    def kind(cell: Cell) -> tuple[str, str, str]:
        moment = injections.random_moment(cell.source, cell.known.operations)
        cell.serve()
        ended = cell.strike(moment, injections.kill_self(number), number)
        allowed = [0, -9] if number == signal.SIGKILL else [0, STOPPED[signal.Signals(number)]]
        if not ended.said:  # the program had not begun: the shell reports the same status
            allowed.append(-number)
        return _then_again(cell, str(moment), ended, allowed)

    return kind


def _then_again(
    cell: Cell, detail: str, ended: Ended, allowed: Sequence[int]
) -> tuple[str, str, str]:
    if wrong := judge(ended, allowed):
        return detail, wrong, ended.said
    wrong, said = cell.again()
    return detail, wrong, f"{ended.said}\n--- again ---\n{said}" if wrong else said


def _disk_full(cell: Cell) -> tuple[str, str, str]:
    cell.serve()
    pages = cell.source.randrange(cell.known.growth // PAGE + 2)
    if cell.source.random() < 0.5:
        moment = Moment(cell.source.randrange(cell.known.operations), 0.0)
        pages = min(pages, cell.source.randrange(4))
        detail = f"{pages} pages left {moment}"
        ended = cell.strike(moment, injections.full_at(cell.room, pages * PAGE))
    elif cell.room.own_disk:
        detail = f"{pages} pages left from the start"
        cell.room.limit(cell.room.used() + pages * PAGE)
        ended = cell.start().end()
    else:
        detail = f"no file above {pages} pages"
        ended = cell.start(injections.full_at(cell.room, pages * PAGE)).end()
    cell.room.writable()
    return _then_again(cell, detail, ended, _REFUSED)


def _read_only(cell: Cell) -> tuple[str, str, str]:
    cell.serve()
    chosen = cell.source.random()
    if chosen < 0.7:
        moment = Moment(cell.source.randrange(cell.known.operations), 0.0)
        ended = cell.strike(moment, cell.room.read_only)
        detail = f"everything {moment}"
        cell.room.writable()
    else:
        folder = cell.room.place / "home" if chosen < 0.85 else None
        detail = "the cache" if folder else "everything from the start"
        cell.room.read_only(folder)
        ended = cell.start().end()
        cell.room.writable(folder)
    return _then_again(cell, detail, ended, _REFUSED)


def _clock(cell: Cell) -> tuple[str, str, str]:
    cell.serve()
    seconds = cell.source.choice((60.0, _DAY, 400 * _DAY))
    moment = Moment(cell.source.randrange(cell.known.operations), 0.0)
    if cell.source.random() < 0.5:
        ended = cell.strike(moment, lambda: injections.clock_back(seconds))
        return _then_again(cell, f"{seconds:.0f} s back {moment}", ended, (0,))
    ended = cell.strike(moment, injections.kill_self(signal.SIGKILL))
    if wrong := judge(ended, (0, -9)):
        return f"killed {moment}", wrong, ended.said
    injections.files_from_the_future(cell.room.place, seconds)
    wrong, said = cell.again(lambda: injections.clock_back(1.0))
    return f"killed {moment}, {seconds:.0f} s back", wrong, said


def _two(cell: Cell) -> tuple[str, str, str]:
    cell.serve()
    share = cell.source.random()
    first = cell.start()
    first.wait(share * cell.known.seconds)
    second = cell.start()
    ends = [first.end(), second.end()]
    detail = f"the second after {share:.2f} of the usual time"
    for ended in ends:
        if wrong := judge(ended, _REFUSED):
            return detail, wrong, ended.said
    if all(ended.status for ended in ends):
        return detail, "neither went on", f"{ends[0].said}\n---\n{ends[1].said}"
    return _then_again(cell, detail, ends[0], _REFUSED)


def _worker(cell: Cell) -> tuple[str, str, str]:
    cell.serve()
    running = cell.start()
    share = cell.source.random()
    running.wait(share * cell.known.seconds)
    while not (workers := running.workers()) and not running.wait(0.01):
        pass
    if workers:
        os.kill(cell.source.choice(workers), signal.SIGKILL)
    return _then_again(cell, f"after {share:.2f} of the usual time", running.end(), _REFUSED)


def _liar(cell: Cell) -> tuple[str, str, str]:
    named = injections.lies()
    name = cell.source.choice(sorted(named))
    first, count = cell.source.randrange(8), cell.source.choice((1, 2, 3, 1000))
    cell.timeout = "0.7" if name in ("hangs", "drips") else "20"

    def lie(handler: Any, number: int, request: dict[str, Any]) -> bool:
        if not first <= number < first + count:
            return False
        named[name](handler, request)
        return True

    cell.serve(lie)
    ended = cell.start().end()
    cell.timeout = "20"
    cell.serve()
    return _then_again(cell, f"{name}, {count} times from answer {first}", ended, _REFUSED)


def _bits(cell: Cell) -> tuple[str, str, str]:
    command, place = cell.known.command, cell.room.place
    files = sorted({p for pattern in command.reads for p in place.glob(pattern) if p.is_file()})
    edited = place / "home" / "datasets"  # manifests are the user's own text: no checksum there
    files = [path for path in files if path.suffix not in _FOR_PEOPLE and path.stat().st_size]
    files = [path for path in files if path.parent != edited]
    path = cell.source.choice(files)
    detail = f"{path.relative_to(place)}: {injections.damage(path, cell.source) or 'unchanged'}"
    cell.serve()
    refused = []
    for number, words in enumerate(command.readers):
        ended = cell.start(words=words).end()
        allowed = (0, 1, 2) if "verify" in words else _REFUSED
        if wrong := judge(ended, allowed):
            return detail, f"{' '.join(words[:2])}: {wrong}", ended.said
        same = printed(ended.printed) == cell.known.printed[number]
        if ended.status == 0 and not same:
            return detail, f"{' '.join(words[:2])}: silently something else", ended.printed
        if ended.status == 2:
            refused.append(words)
    ended = cell.start().end()
    wrong = judge(ended, _REFUSED)
    if not wrong and ended.status == 0:
        for words in refused:  # what was damaged is made again, so that they can do their part
            cell.start(words=words).end()
    if not wrong and ended.status == 0 and (wrong := cell.differs(read=True)):
        wrong = f"silently {wrong}"
    return detail, wrong, ended.said


KINDS: dict[str, tuple[float, Kind]] = {
    "kill -9": (4, _stopped_by(signal.SIGKILL)),
    "SIGINT": (2, _stopped_by(signal.SIGINT)),
    "SIGTERM": (2, _stopped_by(signal.SIGTERM)),
    "disk full": (4, _disk_full),
    "folder read-only": (1.5, _read_only),
    "clock moved back": (1, _clock),
    "two processes on one output": (1.5, _two),
    "worker killed": (4, _worker),
    "engine hangs or lies": (12, _liar),
    "bits flipped, cut, zeroed": (5, _bits),
}


def fits(kind: str, command: Command, own_disk: bool) -> bool:
    """Say whether a kind can be done to a command here."""
    return {
        "worker killed": command.workers,
        "engine hangs or lies": command.asks,
        "bits flipped, cut, zeroed": bool(command.reads),
        "folder read-only": own_disk,
    }.get(kind, True)
