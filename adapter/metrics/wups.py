"""WUPS, the DAQUAR metric (Malinowski and Fritz 2014), on WordNet's own files.

WordNet is no Python package. ``aape`` reads the noun files ``data.noun``, ``index.noun`` and
``noun.exc`` of WordNet 3.0 or 3.1 from a folder: Debian's package ``wordnet-base`` puts them in
``/usr/share/wordnet``, NLTK's data in ``nltk_data/corpora/wordnet``. Similarities are equal to
NLTK's ``wup_similarity``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import cached_property, lru_cache
from pathlib import Path

from ...pipeline.errors import UserError

_FOLDERS = (
    "/usr/share/wordnet", "/usr/local/share/wordnet", "~/nltk_data/corpora/wordnet",
    "/usr/share/nltk_data/corpora/wordnet",
)  # fmt: skip
_ENDINGS = (
    ("s", ""), ("ses", "s"), ("ves", "f"), ("xes", "x"), ("zes", "z"), ("ches", "ch"),
    ("shes", "sh"), ("men", "man"), ("ies", "y"),
)  # fmt: skip


class WordNet:
    """Nouns of WordNet: senses of a word, hypernyms of a sense (known by its byte offset)."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder).expanduser()
        for name in ("data.noun", "index.noun"):
            if not (self.folder / name).exists():
                raise UserError(
                    f"{self.folder} has no WordNet file {name}.",
                    "Install Debian's package wordnet-base, or name a folder with WordNet's files.",
                )

    @classmethod
    def find(cls, folder: str | Path | None = None) -> WordNet | None:
        """Open ``folder``, else ``$AAPE_WORDNET``, else a usual place; None if there is none."""
        named = folder or os.environ.get("AAPE_WORDNET")
        if named:
            return cls(named)
        for place in _FOLDERS:
            if (Path(place).expanduser() / "data.noun").exists():
                return cls(place)
        return None

    @cached_property
    def senses(self) -> dict[str, list[int]]:
        """Senses of each lemma, the most frequent first."""
        table = {}
        for line in self._lines("index.noun"):
            fields = line.split()
            table[fields[0]] = [int(offset) for offset in fields[-int(fields[2]) :]]
        return table

    @cached_property
    def _synsets(self) -> dict[int, tuple[str, tuple[int, ...]]]:
        """First lemma and hypernyms (instances included) of each sense."""
        table = {}
        for line in self._lines("data.noun"):
            fields = line.partition(" | ")[0].split()
            pointers = fields[5 + 2 * int(fields[3], 16) :]
            parents = [
                int(pointers[place + 1])
                for place in range(0, len(pointers) - 3, 4)
                if pointers[place] in ("@", "@i")
            ]
            table[int(fields[0])] = (fields[4].lower(), tuple(parents))
        return table

    @cached_property
    def _exceptions(self) -> dict[str, list[str]]:
        path = self.folder / "noun.exc"
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        return {form: bases for form, *bases in (line.split() for line in lines)}

    def _lines(self, name: str) -> list[str]:
        text = (self.folder / name).read_text(encoding="utf-8")
        return [line for line in text.splitlines() if line and not line.startswith("  ")]

    def lookup(self, word: str) -> list[int]:
        """Return the senses of a noun, its plural undone; empty if WordNet lacks it."""
        form = word.strip().lower().replace(" ", "_")
        found: list[int] = []
        for base in self._bases(form):
            found += [sense for sense in self.senses[base] if sense not in found]
        return found

    def _bases(self, form: str) -> list[str]:
        if form in self._exceptions:
            return self._known([form, *self._exceptions[form]])
        forms = _undo([form])
        found = self._known([form, *forms])
        while not found and forms:
            forms = _undo(forms)
            found = self._known(forms)
        return found

    def _known(self, forms: Sequence[str]) -> list[str]:
        return [form for form in dict.fromkeys(forms) if form in self.senses]

    @lru_cache(maxsize=1 << 16)  # noqa: B019
    def _distances(self, sense: int) -> dict[int, int]:
        """Shortest number of steps up from ``sense`` to each of its ancestors, itself included."""
        found = {sense: 0}
        frontier = [sense]
        while frontier:
            following = []
            for child in frontier:
                for parent in self._synsets[child][1]:
                    if parent not in found:
                        found[parent] = found[child] + 1
                        following.append(parent)
            frontier = following
        return found

    @lru_cache(maxsize=1 << 18)  # noqa: B019
    def _depth(self, sense: int, longest: bool) -> int:
        parents = self._synsets[sense][1]
        choose = max if longest else min
        return 1 + choose(self._depth(p, longest) for p in parents) if parents else 0

    def _name(self, sense: int) -> str:
        lemma = self._synsets[sense][0]
        return f"{lemma}.n.{self.senses[lemma].index(sense) + 1:02d}"

    def similarity(self, left: int, right: int) -> float:
        """Return the Wu-Palmer similarity of two senses in 0–1."""
        up, other = self._distances(left), self._distances(right)
        common = up.keys() & other.keys()
        if not common:
            return 0.0
        deepest = max(self._depth(sense, False) for sense in common)
        level = [sense for sense in common if self._depth(sense, False) == deepest]
        subsumer = left if left in level else min(level, key=self._name)
        depth = self._depth(subsumer, True) + 1
        # the shortest path to the subsumer may lead over one of its own ancestors
        above = self._distances(subsumer)
        first = min(up[sense] + steps for sense, steps in above.items())
        second = min(other[sense] + steps for sense, steps in above.items())
        return 2.0 * depth / (first + second + 2 * depth)

    @lru_cache(maxsize=1 << 18)  # noqa: B019
    def word_similarity(self, left: str, right: str) -> float:
        """Return the best similarity over all senses; 0 if a word is unknown."""
        pairs = ((a, b) for a in self.lookup(left) for b in self.lookup(right))
        return max((self.similarity(a, b) for a, b in pairs), default=0.0)


def _undo(forms: Sequence[str]) -> list[str]:
    return [f[: -len(old)] + new for f in forms for old, new in _ENDINGS if f.endswith(old)]


def answer_items(answer: str) -> list[str]:
    """Split a DAQUAR answer, ``"book, lamp"``, into its items."""
    return [item.strip() for item in answer.split(",")]


def wups(
    prediction: str, answer: str, word_similarity: Callable[[str, str], float], threshold: float
) -> float:
    """Return WUPS of one answer in 0–1, both sides read as sets of comma-separated items.

    ``min(Π_a max_t μ(a, t), Π_t max_a μ(a, t))`` with ``μ`` the Wu-Palmer similarity, weighted by
    0.1 below ``threshold``; the paper reports 0.9 and 0.0. Equal items have similarity 1, also
    where WordNet lacks them.
    """

    def membership(item: str, others: Sequence[str]) -> float:
        best = 0.0
        for other in others:
            value = 1.0 if item == other else word_similarity(item, other)
            best = max(best, value if item == other or value >= threshold else 0.1 * value)
        return best

    given, wanted = answer_items(prediction), answer_items(answer)
    left = right = 1.0
    for item in given:
        left *= membership(item, wanted)
    for item in wanted:
        right *= membership(item, given)
    return min(left, right)
