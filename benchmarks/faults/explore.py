"""Undisturbed runs: what each command leaves, how long it takes, and which modules it needs."""

from __future__ import annotations

import gc
import importlib
import json
import os
import random
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from . import injections, world
from .cell import Cell, Known, fork_workers, judge
from .commands import Command
from .outcome import outcome, printed
from .rooms import PAGE, Room


def in_child(work: Callable[[], Any]) -> Any:
    """Run in a forked process; return what the work returns, as JSON can hold it."""
    return in_children([work])[0]


def in_children(works: Sequence[Callable[[], Any]]) -> list[Any]:
    """Run each in a forked process of its own, all at once; return what each returns."""
    started = [_start(work) for work in works]
    return [_ended(*each) for each in started]


def _start(work: Callable[[], Any]) -> tuple[int, int]:
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.close(read)
            with os.fdopen(write, "w") as stream:
                json.dump(work(), stream)
            status = 0
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(status)
    os.close(write)
    return pid, read


def _ended(pid: int, read: int) -> Any:
    with os.fdopen(read) as stream:
        text = stream.read()
    os.waitpid(pid, 0)
    if not text:
        raise SystemExit("faults: a process of the injector ended without a word; see above.")
    return json.loads(text)


def warm(commands: Sequence[Command], place: Path) -> None:
    """Import all that the commands import, so that forked processes start in a moment.

    The commands run in a forked process, which tells what it has imported: this one stays without
    threads.
    """

    def run() -> list[str]:
        import torch

        import aape.cli

        torch.set_num_threads(1)
        room = Room.enter(place)
        world.build(room.place)
        os.chdir(room.place)
        os.environ["AAPE_HOME"] = str(room.place / "home")
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
        pid, port = world.serve(0, None)
        fork_workers()
        for command in commands:
            for words in (*command.before, command.words, *command.readers):
                world.install()
                line = [
                    word.format(server=f"http://127.0.0.1:{port}/v1", timeout=20) for word in words
                ]
                with suppress(BaseException):
                    aape.cli.main(line)
        os.kill(pid, 9)
        return sorted(sys.modules)

    for name in in_child(run):
        with suppress(BaseException):
            importlib.import_module(name)
    import torch
    import typer

    import aape.cli

    torch.set_num_threads(1)
    world.install()
    # typer would build all commands anew in every process, which takes longer than most of them
    aape.cli.app = typer.main.get_command(aape.cli.app)  # type: ignore[assignment]
    gc.collect()
    gc.freeze()  # else the first collection of a forked process copies all that it looks at
    gc.disable()


def know(command: Command, scratch: Path, number: int) -> Known:
    """Run a command twice from the same start, undisturbed, and keep what it left.

    Raises:
        SystemExit: it fails, or two runs differ: then nothing can be said about disturbed ones.
    """
    folder = scratch / f"{number:02}"
    known = Known(command, folder / "before", folder / "after")
    known.before.mkdir(parents=True)
    world.build(known.before)

    def first() -> dict[str, Any]:
        cell = Cell(known, Room.enter(scratch / "room"), random.Random(0))
        cell.serve()
        for words in command.before:
            _sound(cell.start(words=words).end(), words)
        shutil.rmtree(known.before)
        shutil.copytree(cell.room.place, known.before)
        used = cell.room.used()
        read, write = os.pipe()
        ended = cell.start(lambda: injections.count_operations(cell.room, write)).end()
        os.close(write)
        _sound(ended, command.words)
        with os.fdopen(read, "rb") as stream:
            operations = len(stream.read())
        left = outcome(cell.room.place)
        shutil.copytree(cell.room.place, known.after)
        read_back = []
        for words in command.readers:
            seen = cell.start(words=words).end()
            _sound(seen, words)
            read_back.append(printed(seen.printed))
        read = outcome(cell.room.place)
        cell.stop()
        return {
            "outcome": left, "read": read, "printed": read_back, "seconds": ended.seconds,
            "operations": max(operations, 1), "growth": max(cell.room.used() - used, PAGE),
        }  # fmt: skip

    def second() -> str:
        cell = Cell(known, Room.enter(scratch / "room"), random.Random(0))
        cell.serve()
        wrong, said = cell.again()
        cell.stop()
        return wrong and f"{wrong}\n{said}"

    for name, value in in_child(first).items():
        setattr(known, name, value)
    if wrong := in_child(second):
        raise SystemExit(f"faults: two undisturbed runs of {command.name} differ: {wrong}")
    return known


def _sound(ended: Any, words: Sequence[str]) -> None:
    if wrong := judge(ended, (0,)):
        raise RuntimeError(f"{' '.join(words)}: {wrong}\n{ended.said[-2000:]}")


def scratch_folder() -> Path:
    """Return a folder in memory where there is one: rooms are copied from it all the time."""
    memory = Path("/dev/shm")
    return Path(tempfile.mkdtemp(prefix="faults-", dir=memory if memory.is_dir() else None))
