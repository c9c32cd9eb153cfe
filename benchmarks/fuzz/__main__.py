"""Read files that are odd: what a reader does not like it says in one sentence, whatever it is.

    python -m benchmarks.fuzz --count 200000 --seed 1 --page docs/reliability.md

Sound files of every kind are mutated (bits, pieces, values of JSON, pieces of other files) and
read. A :class:`UserError` is a good end; anything else is a finding: a traceback, a crash, more
than ten seconds, more than four gigabytes. Findings of one kind are counted once and kept in
``--out`` with the file that made them, which belongs into a test.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from ..marked_page import write_between
from .mutate import mutate
from .readers import Reader, readers

_AT_ONCE = 400  # inputs of one forked process
_SECONDS = 10
_MEMORY = 6 << 30


class _TooSlow(BaseException):
    """An input took longer than ten seconds."""


def _late(number: int, frame: object) -> None:
    raise _TooSlow


def one(reader: Reader, folder: Path, name: str, data: bytes) -> str:
    """Read one input; return the kind of finding, or nothing."""
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


def batch(reader: Reader, seeds: Sequence[str], scratch: Path) -> tuple[int, dict[str, tuple]]:
    """Read one input a seed in a forked process; returns how many, and findings with an input."""
    folder = scratch / "room" / "data"
    shutil.rmtree(scratch / "room", ignore_errors=True)
    folder.mkdir(parents=True)
    reader.prepare(folder)
    report = scratch / "report"
    report.write_bytes(b"")
    pid = os.fork()
    if pid == 0:
        _child(reader, seeds, folder, report)
    _, status = os.waitpid(pid, 0)
    lines = [json.loads(line) for line in report.read_text().splitlines() if line.endswith("}")]
    found = {line["kind"]: (line["seed"], line["name"]) for line in lines if line["kind"]}
    done = sum("end" in line for line in lines)
    if status and len(lines) < 2 * len(seeds):
        last = lines[-1] if lines else {"seed": seeds[0], "name": ""}
        kind = f"{reader.name}: the process died ({os.waitstatus_to_exitcode(status)})"
        found[kind] = (last["seed"], last["name"])
        done += 1
    return done, found


def _child(reader: Reader, seeds: Sequence[str], folder: Path, report: Path) -> None:
    status = 1
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
        signal.signal(signal.SIGALRM, _late)
        with report.open("w", buffering=1) as stream:
            for seed in seeds:
                name, data = made(reader, seed)
                stream.write(json.dumps({"seed": seed, "name": name, "kind": ""}) + "\n")
                kind = one(reader, folder, name, data)
                stream.write(
                    json.dumps({"seed": seed, "name": name, "kind": kind, "end": 1}) + "\n"
                )
        status = 0
    finally:
        os._exit(status)


def made(reader: Reader, seed: str) -> tuple[str, bytes]:
    """Return name and bytes of the input of a seed."""
    source = random.Random(seed)
    name = source.choice(sorted(reader.sound))
    others = list(reader.sound.values())
    return name, mutate(reader.sound[name], source, others)


def run(
    count: int, seed: int, names: Sequence[str] = (), minutes: float = 0.0, out: Path | None = None
) -> tuple[Counter[str], dict[str, tuple[str, str, str]]]:
    """Fuzz all readers in turn; return inputs by reader, and findings with their first input."""
    scratch = Path(
        tempfile.mkdtemp(prefix="fuzz-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None)
    )
    os.environ["AAPE_HOME"] = str(scratch / "home")
    start = time.monotonic()
    counts: Counter[str] = Counter()
    findings: dict[str, tuple[str, str, str]] = {}
    try:
        every = [r for r in readers(scratch) if not names or r.name in names]
        for reader in every:  # imports happen here, and sound files must be sound
            _check_sound(reader, scratch)
        whole = sum(reader.share for reader in every)
        wanted = {reader.name: max(1, int(count * reader.share / whole)) for reader in every}
        while any(counts[r.name] < wanted[r.name] for r in every):
            for reader in every:
                left = wanted[reader.name] - counts[reader.name]
                if left <= 0 or (minutes and time.monotonic() - start > minutes * 60):
                    continue
                first = counts[reader.name]
                part = min(left, max(10, int(_AT_ONCE * min(1.0, reader.share))))
                given = [f"{seed}/{reader.name}/{n}" for n in range(first, first + part)]
                done, found = batch(reader, given, scratch)
                counts[reader.name] += max(done, 1)
                for kind, (which, name) in found.items():
                    if kind not in findings:
                        findings[kind] = (reader.name, which, name)
                        print(
                            f"{kind}: {reader.name}, {name}, {which}", file=sys.stderr, flush=True
                        )
                        if out is not None:
                            out.mkdir(parents=True, exist_ok=True)
                            data = made(reader, which)[1]
                            (out / f"{len(findings):03}-{name}").write_bytes(data)
            if minutes and time.monotonic() - start > minutes * 60:
                break
        return counts, findings
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _check_sound(reader: Reader, scratch: Path) -> None:
    for name, data in reader.sound.items():
        folder = scratch / "sound" / "data"
        shutil.rmtree(scratch / "sound", ignore_errors=True)
        folder.mkdir(parents=True)
        reader.prepare(folder)
        (folder / name).write_bytes(data)
        try:
            reader.read(folder, folder / name)
        except Exception as error:
            print(f"fuzz: {reader.name} refuses {name}: {error}", file=sys.stderr, flush=True)


def write_page(path: Path, counts: Counter[str], findings: int, seed: int) -> None:
    """Replace what is between the marks by the counts."""
    lines = [
        f"`python -m benchmarks.fuzz --count {sum(counts.values())} --seed {seed}`: "
        f"{sum(counts.values()):,} inputs, {findings} that ended in anything but a sentence.",
        "",
        "| reader | inputs |",
        "|---|---|",
        *(f"| {name} | {number:,} |" for name, number in counts.items()),
    ]
    write_between(path, "fuzz", lines)


def main() -> None:
    """Fuzz as asked; exit status 1 where something was found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--reader", action="append", default=[], help="only this; repeat it")
    parser.add_argument("--minutes", type=float, default=0.0, help="stop after so long")
    parser.add_argument("--page", type=Path, default=None, help="write the counts into this page")
    parser.add_argument("--out", type=Path, default=None, help="folder for inputs with findings")
    arguments = parser.parse_args()
    counts, findings = run(
        arguments.count, arguments.seed, arguments.reader, arguments.minutes, arguments.out
    )
    for name, number in counts.items():
        print(f"{number:9,}  {name}")
    print(f"{sum(counts.values()):9,}  in all, {len(findings)} kinds of findings")
    if arguments.page:
        write_page(arguments.page, counts, len(findings), arguments.seed)
    sys.exit(bool(findings))


if __name__ == "__main__":
    main()
