"""Change one small thing of a module and see whether its tests notice.

    python -m benchmarks.mutants --count 240 --seed 1 --page docs/reliability.md

Four places are mutated: metrics, protocols, bank and method (``targets.py``). A mutant is killed
by a test that fails, or that takes three times as long. A survivor shows a missing test, dead code,
or the same program, which ``equivalent.json`` says of each with the reason. Exit status 1 where one
survives without a reason.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from .mutate import Mutant, draw, find, places_of
from .page import reasons, write_page
from .targets import PLACES
from .trial import LONG, ROOT, import_others, trial

_LATE = 3  # times as long as without a change
_PATIENCE = 600.0


def drawn(place: str, count: int, seed: int) -> list[Mutant]:
    """Return the mutants of a place, each module by the number of its places, at least two."""
    sources = {name: (ROOT / name).read_text(encoding="utf-8") for name in PLACES[place]}
    sizes = {name: places_of(source) for name, source in sources.items()}
    whole = sum(sizes.values())
    return [
        mutant
        for name, source in sources.items()
        for mutant in draw(name, source, max(2, round(count * sizes[name] / whole)), seed)
    ]


def tests_of(place: str, module: str) -> list[str]:
    """Return the tests of a module, its own examples first."""
    name = "aape." + module.removesuffix(".py").replace("/", ".")
    examples = []
    if ">>>" in (ROOT / module).read_text(encoding="utf-8"):
        examples = [f"tests/test_docstrings.py::test_examples_in_docstrings[{name}]"]
    return [*examples, *PLACES[place][module]]


def run(
    mutants: Iterable[tuple[str, Mutant]],
    known: dict[tuple[str, str, str], dict[str, Any]],
    log: Path | None,
    scratch: Path,
) -> list[dict[str, Any]]:
    """Try every mutant that is not known; return a record each."""
    records = []
    limits: dict[str, float] = {}
    for place, mutant in mutants:
        if mutant.change in known:
            records.append(known[mutant.change])
            continue
        tests = tests_of(place, mutant.module)
        if mutant.module not in limits:
            limits[mutant.module] = _undisturbed(mutant.module, tests, scratch)
        ended, seconds = _tried(mutant, tests, limits[mutant.module])
        record = {
            "place": place, "module": mutant.module, "line": mutant.line,
            "was": mutant.was, "now": mutant.now, "ended": ended, "seconds": round(seconds, 1),
        }  # fmt: skip
        records.append(record)
        _say(record)
        _keep(record, log)
    return records


def tried_again(
    old: Sequence[dict[str, Any]], log: Path | None, scratch: Path
) -> list[dict[str, Any]]:
    """Try the survivors of an earlier run against the tests of today; return all of its records."""
    alive, records = [], []
    for record in old:
        source = (ROOT / record["module"]).read_text(encoding="utf-8")
        if record["ended"] != "passed":
            records.append(record)
        elif found := find(record["module"], source, record["was"], record["now"]):
            alive.append((record["place"], found))
        else:
            records.append(record | {"ended": "gone"})
    for record in records:
        _keep(record, log)
    return [*records, *run(alive, {}, log, scratch)]


def _tried(mutant: Mutant, tests: Sequence[str], limit: float) -> tuple[str, float]:
    """Try the quick tests, and the long ones where those notice nothing."""
    changed = (ROOT / mutant.module, mutant.text)
    ended, seconds = trial(tests, limit, changed)
    if ended == "passed":
        ended, more = trial(tests, _PATIENCE, changed, marked=LONG)
        seconds += more
    return ended, seconds


def _undisturbed(module: str, tests: Sequence[str], scratch: Path) -> float:
    """Run the quick tests without a change, learn what they import; return the limit in seconds."""
    output, modules = scratch / "output", scratch / "modules"
    ended, seconds = trial(tests, _PATIENCE, modules=modules, log=output)
    if ended != "passed":
        print(output.read_text(encoding="utf-8", errors="replace")[-3000:], file=sys.stderr)
        raise SystemExit(f"The tests of {module} do not pass without a change ({ended}).")
    import_others(modules)
    broken = (ROOT / module, "raise RuntimeError('a mutant that cannot live')\n")
    if trial(tests, _PATIENCE, broken)[0] == "passed":
        raise SystemExit(f"The tests of {module} pass without it: nothing would be measured.")
    print(f"{module}: {seconds:.1f} s without a change", file=sys.stderr, flush=True)
    return 10 + _LATE * seconds


def _change(record: dict[str, Any]) -> tuple[str, str, str]:
    return record["module"], record["was"], record["now"]


def _keep(record: dict[str, Any], log: Path | None) -> None:
    if log is not None:
        with log.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(record, ensure_ascii=False) + "\n")


def _say(record: dict[str, Any]) -> None:
    word = "SURVIVES" if record["ended"] == "passed" else record["ended"]
    print(
        f"{word:8} {record['seconds']:5.1f} s  {record['module']}:{record['line']}"
        f"  {record['was']}  ->  {record['now']}",
        flush=True,
    )


def _read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def main() -> None:
    """Try as many mutants as asked; exit status 1 where one survives without a reason."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--count", type=int, default=240, help="mutants in all four places")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--place", action="append", choices=list(PLACES), help="only this")
    parser.add_argument("--only", default="", help="only modules with this in their path")
    parser.add_argument("--log", type=Path, default=None, help="append a line of JSON a mutant")
    parser.add_argument("--known", type=Path, default=None, help="a log: its mutants are not tried")
    parser.add_argument("--from-log", type=Path, default=None, help="run nothing, report a log")
    parser.add_argument("--again", type=Path, default=None, help="try the survivors of a log again")
    parser.add_argument("--before", type=Path, default=None, help="log of an earlier run")
    parser.add_argument("--page", type=Path, default=None, help="write the counts into this page")
    given = parser.parse_args()
    os.chdir(ROOT)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # and no child is left
    known = {_change(r): r for r in _read(given.known)} if given.known else {}
    with tempfile.TemporaryDirectory(prefix="mutants-") as scratch:
        if given.from_log:
            records = _read(given.from_log)
        elif given.again:
            records = tried_again(_read(given.again), given.log, Path(scratch))
        else:
            mutants = (
                (place, mutant)
                for place in given.place or list(PLACES)
                for mutant in drawn(place, given.count // len(PLACES), given.seed)
                if given.only in mutant.module
            )
            records = run(mutants, known, given.log, Path(scratch))
    alive = [r for r in records if r["ended"] == "passed"]
    open_ones = [r for r in alive if _change(r) not in reasons()]
    print(f"{len(records)} mutants, {len(alive)} survive, {len(open_ones)} without a reason")
    if given.page:
        before = _read(given.before) if given.before else []
        write_page(given.page, records, before, given.seed)
    sys.exit(bool(open_ones))


if __name__ == "__main__":
    main()
