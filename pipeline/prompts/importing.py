"""Published prompt files to banks: matched by class name, then judged and encoded as any other."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import TYPE_CHECKING

from ..config import Section, VerdictConfig
from ..datasets.manifest import Manifest
from ..errors import UserError
from ..files import exclusive, hash_file, hash_value
from .engines.base import Answer
from .judge import Draft, Judge, check_overwrite, write_drafts
from .published import Match, Published, match_names, read_published
from .requests import ModelIdentity, Request
from .verdicts import ClassNames

if TYPE_CHECKING:
    from ..encoders.base import Encoder


class ImportReport(Section):
    """How the names of a file matched the classes of a data set, and what became of its texts."""

    bank: str
    file: str
    format: str
    names: int
    texts: int
    matched: dict[str, int]  # rule -> names
    renamed: dict[str, str]  # name in the file -> class name, where they differ
    repeated: dict[str, list[int]]  # names that stand for several classes, which share the texts
    unmatched: dict[str, str]  # name in the file -> nearest class name
    missing: list[str]  # classes without texts
    prompts: int
    verdicts: dict[str, int]

    def to_text(self) -> str:
        """Return the report for people."""
        rules = ", ".join(f"{count} by {rule}" for rule, count in self.matched.items())
        lines = [
            f"{self.file}: {self.names:,} names, {self.texts:,} texts ({self.format}).",
            f"Matched: {rules or 'none'}.",
        ]
        if self.repeated:
            names = ", ".join(f"{name!r} ({ids})" for name, ids in self.repeated.items())
            lines.append(f"Names of several classes, which share the texts: {names}.")
        if self.unmatched:
            lines.append(f"Not matched, {len(self.unmatched)}: {_list(self.unmatched)}.")
        if self.missing:
            lines.append(f"Classes without texts, {len(self.missing)}: {_list(self.missing)}.")
        counts = ", ".join(f"{count:,} {verdict}" for verdict, count in self.verdicts.items())
        lines.append(f"{self.bank} holds {self.prompts:,} prompts ({counts}).")
        return "\n".join(lines)


def import_prompts(
    path: str | Path,
    manifest: Manifest,
    out: str | Path | None = None,
    *,
    kind: str = "auto",
    allow_unmatched: bool = False,
    encoder: Encoder | None = None,
    verdicts: VerdictConfig | None = None,
) -> ImportReport:
    """Turn a published file into a bank of ``manifest``.

    The texts are taken word for word, in the order of the file; verdicts say which are used. A name
    that stands for several classes gives its texts to all of them.

    Raises:
        UserError: the file cannot be read; or, unless ``allow_unmatched``, a name matches no class
            or a class is left without texts; or no name matches at all.
    """
    published = read_published(path, kind)
    match = match_names(published.texts, manifest)
    if not allow_unmatched:
        _check(published, match, manifest)
    if len(match.unmatched) == len(published.texts):
        raise UserError(f"No name in {path} is a class of {manifest.name!r}.")
    bank = Path(out or f"{manifest.name}.bank.parquet")
    check_overwrite(bank, manifest.name)
    drafts = _drafts(published, match, manifest)
    judge = Judge(encoder, verdicts or VerdictConfig())
    with exclusive(f"{bank}.answers", "filling"):
        judge.judge(drafts, ClassNames(manifest.class_names), cut=False)
        write_drafts(bank, drafts, manifest, judge, note=Path(f"{bank}.answers") / "bank.json")
    return _report(bank, published, match, manifest, drafts)


def _drafts(published: Published, match: Match, manifest: Manifest) -> list[Draft]:
    source = ModelIdentity("", "", "")
    revision = hash_file(published.path)[:16]
    drafts = []
    for name, texts in published.texts.items():
        for class_id in match.ids[name]:
            for index, text in enumerate(texts):
                key = hash_value([manifest.name, class_id, published.path.name, index, text])[:32]
                request = Request(
                    key=key,
                    dataset=manifest.name,
                    class_id=class_id,
                    class_name=manifest.class_names[class_id],
                    query_id=published.path.name,
                    query_template="",
                    prompt="",
                    sample_index=index,
                    seed=0,
                    sampling={},
                )
                answer = Answer(key, text, "", 0, "import", revision, "")
                drafts.append(Draft(request, source, answer))
    return drafts


def _nearest(name: str, manifest: Manifest) -> str:
    lower = {item.casefold(): item for item in manifest.class_names}
    near = difflib.get_close_matches(name.casefold(), lower, n=1, cutoff=0.6)
    return lower[near[0]] if near else ""


def _check(published: Published, match: Match, manifest: Manifest) -> None:
    problems = []
    if match.unmatched:
        near = {name: _nearest(name, manifest) for name in match.unmatched[:5]}
        problems.append(
            f"{len(match.unmatched)} of its {len(match.ids)} names match no class: {_list(near)}"
            + (" …" if len(match.unmatched) > 5 else "")
        )
    if match.missing:
        names = [manifest.class_names[class_id] for class_id in match.missing]
        problems.append(f"{len(names)} classes get no texts: {_list(names[:5])}")
    if problems:
        raise UserError(
            f"{published.path.name} does not fit the data set {manifest.name!r}: "
            f"{'; '.join(problems)}.",
            "Add the names as aliases in the manifest, or go on with --allow-unmatched.",
        )


def _list(names: dict[str, str] | list[str]) -> str:
    if isinstance(names, list):
        return ", ".join(map(repr, names))
    return ", ".join(
        f"{name!r} (nearest: {near!r})" if near else repr(name) for name, near in names.items()
    )


def _report(
    bank: Path, published: Published, match: Match, manifest: Manifest, drafts: list[Draft]
) -> ImportReport:
    rules: dict[str, int] = {}
    for rule in match.how.values():
        rules[rule] = rules.get(rule, 0) + 1
    counts: dict[str, int] = {}
    for draft in drafts:
        counts[draft.verdict] = counts.get(draft.verdict, 0) + 1
    names = manifest.class_names
    return ImportReport(
        bank=str(bank),
        file=published.path.name,
        format=published.format,
        names=len(published.texts),
        texts=sum(map(len, published.texts.values())),
        matched=rules,
        renamed={n: names[i[0]] for n, i in match.ids.items() if i and names[i[0]] != n},
        repeated={name: ids for name, ids in match.ids.items() if len(ids) > 1},
        unmatched={name: _nearest(name, manifest) for name in match.unmatched},
        missing=[names[class_id] for class_id in match.missing],
        prompts=len(drafts),
        verdicts=dict(sorted(counts.items(), key=lambda item: -item[1])),
    )
