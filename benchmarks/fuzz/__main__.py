"""Read files that are odd: what a reader does not like it says in one sentence, whatever it is.

    python -m benchmarks.fuzz --count 200000 --seed 1
    python -m benchmarks.fuzz --guided 30 --log fuzz.jsonl --page docs/reliability.md

Sound files of every kind are mutated (bits, pieces, values of JSON, pieces of other files) and
read. A :class:`UserError` is a good end; anything else is a finding: a traceback, a crash, more
than ten seconds, more than six gigabytes. Findings of one kind are counted once and kept in
``--out`` with the file that made them, which belongs into a test.

With ``--guided SECONDS`` atheris watches which lines an input reaches, so long for every sound
file; what reaches new ones is mutated further. The page counts all that the log has.
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
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..marked_page import write_between
from .guided import guide
from .mutate import mutate
from .readers import Reader, readers
from .trial import MEMORY, SCRATCH, late, try_one

_AT_ONCE = 400  # inputs of one forked process


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
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        signal.signal(signal.SIGALRM, late)
        with report.open("w", buffering=1) as stream:
            for seed in seeds:
                name, data = made(reader, seed)
                stream.write(json.dumps({"seed": seed, "name": name, "kind": ""}) + "\n")
                kind = try_one(reader, folder, name, data)
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
    scratch = Path(tempfile.mkdtemp(prefix="fuzz-", dir=SCRATCH))
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
                        data = made(reader, which)[1]
                        _keep(out, len(findings), f"{reader.name} ({which})", kind, name, data)
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


def run_guided(
    seconds: int, seed: int, names: Sequence[str] = (), out: Path | None = None
) -> tuple[Counter[str], dict[str, tuple[str, str, str]]]:
    """Let atheris fuzz every sound file of every reader for so long; returns as :func:`run`."""
    counts: Counter[str] = Counter()
    findings: dict[str, tuple[str, str, str]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        pairs = [(r.name, name) for r in readers(Path(scratch)) for name in r.sound]
    for reader, name in pairs:
        if names and reader not in names:
            continue
        number, found = guide(reader, name, seed, seconds)
        counts[reader] += number
        print(f"{number:9,}  {reader}, {name}", file=sys.stderr, flush=True)
        for kind, data in found.items():
            if kind not in findings:
                findings[kind] = (reader, "", name)
                _keep(out, len(findings), reader, kind, name, data)
    return counts, findings


def _keep(out: Path | None, number: int, reader: str, kind: str, name: str, data: bytes) -> None:
    print(f"{kind}: {reader}, {name}", file=sys.stderr, flush=True)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        (out / f"{number:03}-{name}").write_bytes(data)


def write_page(path: Path, records: Sequence[dict[str, Any]]) -> None:
    """Replace what is between the marks by the counts of a log's lines."""
    ways = {False: Counter[str](), True: Counter[str]()}
    for record in records:
        ways[record["guided"]].update(record["counts"])
    drawn, guided = ways[False], ways[True]
    kinds = {kind for record in records for kind in record["findings"]}
    lines = [
        f"{drawn.total() + guided.total():,} inputs. Kinds of ends that were no sentence: "
        f"{len(kinds)}.",
        "",
        "| reader | mutated at random | guided by atheris |",
        "|---|---|---|",
        *(f"| {name} | {drawn[name]:,} | {guided[name]:,} |" for name in drawn | guided),
        f"| all | {drawn.total():,} | {guided.total():,} |",
    ]
    write_between(path, "fuzz", lines)


def main() -> None:
    """Fuzz as asked; exit status 1 where something was found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--reader", action="append", default=[], help="only this; repeat it")
    parser.add_argument("--minutes", type=float, default=0.0, help="stop after so long")
    parser.add_argument(
        "--guided", type=int, default=0, metavar="SECONDS", help="atheris, so long a sound file"
    )
    parser.add_argument("--log", type=Path, default=None, help="add the counts to this file")
    parser.add_argument("--page", type=Path, default=None, help="write the log into this page")
    parser.add_argument("--out", type=Path, default=None, help="folder for inputs with findings")
    arguments = parser.parse_args()
    if arguments.guided:
        counts, findings = run_guided(
            arguments.guided, arguments.seed, arguments.reader, arguments.out
        )
    else:
        counts, findings = run(
            arguments.count, arguments.seed, arguments.reader, arguments.minutes, arguments.out
        )
    for name, number in counts.items():
        print(f"{number:9,}  {name}")
    print(f"{sum(counts.values()):9,}  in all, {len(findings)} kinds of findings")
    record = {"guided": bool(arguments.guided), "seed": arguments.seed, "counts": counts,
              "findings": sorted(findings)}  # fmt: skip
    if arguments.log:
        with arguments.log.open("a") as stream:
            stream.write(json.dumps(record) + "\n")
    if arguments.page:
        lines = arguments.log.read_text().splitlines() if arguments.log else [json.dumps(record)]
        write_page(arguments.page, [json.loads(line) for line in lines])
    sys.exit(bool(findings))


if __name__ == "__main__":
    main()
