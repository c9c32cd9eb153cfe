"""METEOR and SPICE through pycocoevalcap, for machines with Java.

Both are Java programs of their authors; there is no second implementation worth trusting. SPICE
wants, besides, the Stanford parser files, which pycocoevalcap fetches at its first use.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import shutil
from collections.abc import Sequence
from pathlib import Path

from .ngrams import Tokens, check_captions

_PARSER = "stanford-corenlp-3.6.0.jar"


def available() -> dict[str, str]:
    """Return ``{"METEOR": "", "SPICE": "reason"}``: empty where the metric can be had."""
    found = importlib.util.find_spec("pycocoevalcap")
    if found is None or not found.submodule_search_locations:
        reason = "the package pycocoevalcap is not installed"
        return {"METEOR": reason, "SPICE": reason}
    if shutil.which("java") is None:
        reason = "there is no java on the PATH"
        return {"METEOR": reason, "SPICE": reason}
    folder = Path(next(iter(found.submodule_search_locations)))
    meteor = (folder / "meteor" / "meteor-1.5.jar").exists()
    parser = (folder / "spice" / "lib" / _PARSER).exists()
    return {
        "METEOR": "" if meteor else "pycocoevalcap has no meteor-1.5.jar",
        "SPICE": "" if parser else f"{_PARSER} is not in pycocoevalcap's spice/lib",
    }


def java_scores(
    candidates: Sequence[Tokens], references: Sequence[Sequence[Tokens]]
) -> dict[str, float]:
    """Return corpus METEOR and SPICE in 0–1, those that :func:`available` offers."""
    check_captions(candidates, references)
    missing = available()
    truth = {i: [" ".join(line) for line in group] for i, group in enumerate(references)}
    output = {i: [" ".join(line)] for i, line in enumerate(candidates)}
    scores: dict[str, float] = {}
    if not missing["METEOR"]:
        from pycocoevalcap.meteor.meteor import Meteor

        scores["METEOR"] = float(Meteor().compute_score(truth, output)[0])
    if not missing["SPICE"]:
        from pycocoevalcap.spice.spice import Spice

        with contextlib.redirect_stdout(io.StringIO()):
            scores["SPICE"] = float(Spice().compute_score(truth, output)[0])
    return scores
