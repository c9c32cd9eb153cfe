"""Disturb every long-running command, type it again, and count what came of it.

    python -m benchmarks.faults --count 2000 --seed 1 --page docs/reliability.md

Each injection forks a process that has everything imported already, fills a small disk of its own,
and disturbs one command there. What it must do is in :mod:`.cell`; ``--only N`` repeats the n-th
injection of a seed and prints what was said.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from .cell import KINDS, Cell, Known, Verdict, fits
from .commands import COMMANDS
from .explore import in_child, in_children, know, scratch_folder, warm
from .page import write_page
from .rooms import Room, enter_namespace

_AT_ONCE = 20  # injections of one forked process


def injecting(planned: Sequence[tuple], seed: int, place: Path) -> Callable[[], list[dict]]:
    """Return what does a few injections, one after the other, on a disk of its own."""

    def work() -> list[dict[str, object]]:
        room, done = Room.enter(place), []
        for number, known, kind in planned:
            room.clear()
            source = random.Random(f"{seed}/{number}/blow")
            cell = Cell(known, room, source, full=kind.startswith("bits"))
            detail, problem, said = KINDS[kind][1](cell)
            cell.stop()
            verdict = Verdict(number, known.command.name, kind, detail, problem, said[-4000:])
            done.append(asdict(verdict))
        return done

    return work


def plan(known: Sequence[Known], seed: int, count: int, own_disk: bool) -> Iterator[tuple]:
    """Yield number, command and kind of each injection: kinds and commands by their weights."""
    for number in range(count):
        source = random.Random(f"{seed}/{number}")
        (one,) = source.choices(known, [one.command.weight for one in known])
        kinds = [kind for kind in KINDS if fits(kind, one.command, own_disk)]
        (kind,) = source.choices(kinds, [KINDS[kind][0] for kind in kinds])
        yield number, one, kind


def run(
    count: int,
    seed: int,
    names: Sequence[str] = (),
    only: int = -1,
    minutes: float = 0.0,
    jobs: int = 1,
) -> tuple[list[Verdict], str]:
    """Inject; print what was lost. Returns the verdicts, and on what kind of disk."""
    commands = [command for command in COMMANDS if not names or command.name in names]
    scratch = scratch_folder()
    try:
        start = time.monotonic()
        warm(commands, scratch / "room")
        known = [know(command, scratch, n) for n, command in enumerate(commands)]
        _say(f"{len(known)} commands known after {time.monotonic() - start:.0f} s")
        own_disk = bool(in_child(enter_namespace))
        verdicts: list[Verdict] = []
        planned = list(plan(known, seed, count, own_disk))
        planned = planned[only : only + 1] if only >= 0 else planned
        lanes = jobs if own_disk else 1  # else they would be in one folder
        for first in range(0, len(planned), _AT_ONCE * lanes):
            if minutes and time.monotonic() - start > minutes * 60:
                break
            parts = [planned[first + lane * _AT_ONCE :][:_AT_ONCE] for lane in range(lanes)]
            for done in in_children([injecting(part, seed, scratch / "room") for part in parts]):
                for verdict in (Verdict(**fields) for fields in done):
                    verdicts.append(verdict)
                    if verdict.problem or only >= 0:
                        _tell(verdict)
            if first // (_AT_ONCE * lanes) % 5 == 4:
                _say(f"{len(verdicts)} injected, {time.monotonic() - start:.0f} s")
        return verdicts, "a disk of its own" if own_disk else "a plain folder"
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _tell(verdict: Verdict) -> None:
    about = f"{verdict.number}: {verdict.command}, {verdict.kind}, {verdict.detail}"
    _say(f"{about}: {verdict.problem or 'survived'}")
    _say("    " + verdict.said.strip().replace("\n", "\n    ")[-1500:])


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    """Inject as asked, print the table; exit status 1 where something was lost."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--command", action="append", default=[], help="only this; repeat it")
    parser.add_argument("--only", type=int, default=-1, help="repeat one injection by its number")
    parser.add_argument("--minutes", type=float, default=0.0, help="stop after so long")
    parser.add_argument("--jobs", type=int, default=1, help="injections at once")
    parser.add_argument("--page", type=Path, default=None, help="write the table into this page")
    parser.add_argument("--out", type=Path, default=None, help="write all verdicts as JSON lines")
    arguments = parser.parse_args()
    verdicts, disk = run(
        arguments.count, arguments.seed, arguments.command, arguments.only, arguments.minutes,
        arguments.jobs,
    )  # fmt: skip
    if arguments.out:
        lines = [json.dumps(asdict(verdict)) for verdict in verdicts]
        arguments.out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    if arguments.page:
        write_page(arguments.page, verdicts, arguments.seed, disk)
    lost = sum(bool(verdict.problem) for verdict in verdicts)
    print(f"{len(verdicts)} injected, {len(verdicts) - lost} survived, {lost} lost")
    sys.exit(bool(lost))


if __name__ == "__main__":
    main()
