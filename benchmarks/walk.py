"""A walk through ``aape train``: how many modules one training visits, and how often it turns back.

    python benchmarks/walk.py FEATURES [--recipe default]

Each function counts where it is first entered; a stay is a run of functions of one module, a return
is a stay in a module that was left before. For a state of the past run it on the same feature file
with that checkout as ``aape`` on the path.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
from pathlib import Path
from types import CodeType, FrameType

_OPTIMISED = 1  # of a code object: a function, and not the body of a module or class


def main() -> None:
    """Train once on the file and print the counts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("features", type=Path)
    parser.add_argument("--recipe", default="default")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        visited = walk(asked.features, asked.recipe, Path(folder) / "run")
    stays = [place for place, _ in itertools.groupby(visited)]
    modules = len(set(stays))
    print(f"{len(stays)} stays in {modules} modules, {len(stays) - modules} returns")


def walk(features: Path, recipe: str, out: Path) -> list[str]:
    """Return the file of each function of ``aape`` in the order in which they are first entered."""
    import aape
    from aape.cli import main as command_line

    root = str(Path(aape.__file__).parent)
    seen: set[CodeType] = set()
    visited: list[str] = []

    def enter(frame: FrameType, event: str, _: object) -> None:
        code = frame.f_code
        if event != "call" or code in seen or not code.co_filename.startswith(root):
            return
        seen.add(code)
        own = code.co_filename != __file__ and not code.co_name.startswith("<")
        if own and code.co_flags & _OPTIMISED:
            visited.append(code.co_filename)

    sys.argv = [
        "aape", "train", "--features", str(features), "--recipe", recipe, "--out", str(out),
        "--shots", "4", "--seeds", "1", "--baselines", "none",
    ]  # fmt: skip
    sys.setprofile(enter)
    try:
        command_line()
    except SystemExit as end:
        if end.code:
            raise
    finally:
        sys.setprofile(None)
    return visited


if __name__ == "__main__":
    main()
