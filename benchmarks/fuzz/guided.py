"""One reader under atheris: inputs that reach new lines are kept and changed again.

Started by :mod:`benchmarks.fuzz` as a process of its own, since libFuzzer ends its process and a
crash of a library ends it, too.
"""

from __future__ import annotations

import os
import random
import re
import resource
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from .mutate import mutate
from .readers import readers
from .trial import MEMORY, SCRATCH, late, try_one

_WORDS = 'python -m pip install "atheris>=3" (Linux, Python 3.11 to 3.13)'


def available() -> bool:
    """Whether atheris is installed."""
    from importlib.util import find_spec

    return find_spec("atheris") is not None


def guide(reader: str, name: str, seed: int, seconds: int) -> tuple[int, dict[str, bytes]]:
    """Fuzz one reader from one sound file for so long, in another process.

    Returns:
        How many inputs were read, and an input for each kind of finding.
    """
    if not available():
        raise SystemExit(f"fuzz: --guided needs atheris: {_WORDS}")
    with tempfile.TemporaryDirectory(prefix="guided-", dir=SCRATCH) as scratch:
        words = [reader, name, str(seed), str(seconds), scratch]
        command = [sys.executable, "-m", "benchmarks.fuzz.guided", *words]
        environment = {**os.environ, "AAPE_HOME": f"{scratch}/home"}
        with (Path(scratch) / "said").open("wb") as said:
            status = subprocess.run(
                command, stdout=said, stderr=said, env=environment, check=False
            ).returncode
        text = (Path(scratch) / "said").read_text(errors="replace")
        found = {}
        for file in sorted(Path(scratch).glob("finding-*")):
            kind, _, data = file.read_bytes().partition(b"\n")
            found[kind.decode()] = data
        left = sorted(Path(scratch).glob("artifact-*"))
        if left or status:
            why = f"{reader}: it died ({status})"
            found[why] = left[0].read_bytes() if left else text[-2000:].encode()
    return _executed(text), found


def _executed(said: str) -> int:
    """Return how many inputs libFuzzer says that it ran.

    >>> _executed("#7 NEW cov: 3\\nstat::number_of_executed_units: 12\\n")
    12
    >>> _executed("#7 NEW cov: 3\\nSegmentation fault")
    7
    """
    if whole := re.search(r"number_of_executed_units: (\d+)", said):
        return int(whole[1])
    return max((int(number) for number in re.findall(r"^#(\d+)\s", said, re.MULTILINE)), default=0)


def main(words: list[str]) -> None:
    """Be the other process: read inputs until the time is over, and write findings down."""
    import atheris

    reader_name, name, seed, seconds, scratch = words
    room = Path(scratch)
    folder = room / "room" / "data"
    folder.mkdir(parents=True)
    (room / "sound").mkdir()
    (room / "corpus").mkdir()
    os.environ["AAPE_HOME"] = str(room / "home")
    with atheris.instrument_imports(include=["aape"]):
        (reader,) = [r for r in readers(room / "sound") if r.name == reader_name]
        sound = reader.sound[name]
        reader.prepare(folder)
        signal.signal(signal.SIGALRM, late)
        try_one(reader, folder, name, sound)  # what a function imports is instrumented, too
    (room / "corpus" / "0").write_bytes(sound)
    others = list(reader.sound.values())
    kinds: set[str] = set()

    def test_one_input(data: bytes) -> None:
        if (kind := try_one(reader, folder, name, data)) and kind not in kinds:
            kinds.add(kind)
            (room / f"finding-{len(kinds):03}").write_bytes(kind.encode() + b"\n" + data)

    def custom_mutator(data: bytes, max_size: int, number: int) -> bytes:
        source = random.Random(number)
        if source.random() < 0.5:  # values of JSON and pieces of files, which libFuzzer lacks
            return mutate(data, source, others)[:max_size]
        return atheris.Mutate(data, max_size)

    sys.stdout.flush()
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115, libFuzzer writes to the descriptor
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    _start(atheris, test_one_input, custom_mutator, seed, seconds, room)


def _start(
    atheris: object, test: Callable, mutator: Callable, seed: str, seconds: str, room: Path
) -> None:
    arguments = [
        "guided", str(room / "corpus"), f"-seed={seed}", f"-max_total_time={seconds}",
        "-print_final_stats=1", "-max_len=65536", "-timeout=0", "-handle_alrm=0",
        "-rss_limit_mb=0", f"-artifact_prefix={room}/artifact-",
    ]  # fmt: skip
    atheris.Setup(arguments, test, custom_mutator=mutator)  # type: ignore[attr-defined]
    atheris.Fuzz()  # type: ignore[attr-defined]


if __name__ == "__main__":
    main(sys.argv[1:])
