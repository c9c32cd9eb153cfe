"""What an explanation needs of a run: its adapter, its classes, and the sentences about them.

n sentences, c classes, s trained classes, d embedding width.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ...pipeline.errors import UserError
from ...pipeline.files import hash_file
from ..bank_of_run import bank_of_run
from ..classification.feature_file import FileSource
from ..method.adapter import FittedAdapter
from ..method.problem import ClassSet
from ..open_model import open_encoder
from ..run import RunFolder
from ..run_classes import trained_positions
from ..shots import shots_of

if TYPE_CHECKING:
    from ...pipeline.bank import PromptBank
    from ...pipeline.encoders.base import Encoder


@dataclass(frozen=True)
class Sentences:
    """Sentences of the bank: texts, unit vectors (n, d), and the class of each.

    ``whole`` says that they are no sentences but the mean description of each class, where a
    feature file keeps nothing else.
    """

    texts: list[str]
    vectors: Tensor
    class_ids: list[int]
    whole: bool = False

    def of(self, class_id: int) -> list[int]:
        """Return the positions of a class's sentences."""
        return [i for i, owner in enumerate(self.class_ids) if owner == class_id]


@dataclass
class OpenedRun:
    """A run of classification, ready to be asked about.

    Attributes:
        classes: texts of all classes of the data set, the trained ones first known to ``seen``.
        names: their names; the position is the class id.
        sentences: what the language model wrote, or None, and then ``notes`` say why.
        source: the feature file, where the run was trained on one. encoder: else.
    """

    folder: RunFolder
    about: dict[str, Any]
    adapter: FittedAdapter
    names: list[str]
    classes: ClassSet
    sentences: Sentences | None
    source: FileSource | None = None
    encoder: Encoder | None = None
    bank: PromptBank | None = None
    notes: list[str] = field(default_factory=list)

    def class_id(self, name: str) -> int:
        """Return the class of a name or of an id.

        Raises:
            UserError: there is none, or the name stands for several.
        """
        found = [i for i, known in enumerate(self.names) if known == name]
        if not found:
            found = [i for i, known in enumerate(self.names) if known.lower() == name.lower()]
        if not found and name.isdecimal() and int(name) < len(self.names):
            found = [int(name)]
        if len(found) == 1:
            return found[0]
        if found:
            raise UserError(
                f"{len(found)} classes are called {name!r}.",
                f"Name one by its id: {', '.join(map(str, found))}.",
            )
        import difflib

        near = difflib.get_close_matches(name, self.names, n=3, cutoff=0.4)
        raise UserError(
            f"The run has no class {name!r}.",
            f"Nearest: {', '.join(map(repr, near))}." if near else "",
        )


def open_run(
    run: str | Path,
    *,
    bank: str | Path | None = None,
    features: str | Path | None = None,
    encoder: Encoder | None = None,
    checkpoint: str = "",
) -> OpenedRun:
    """Open a run with its bank or its feature file, each found by its content.

    Raises:
        UserError: the run has no adapter of classification, or what it was trained on is not here.
    """
    folder = RunFolder.open(run)
    tensors, about = folder.load_classifier()
    adapter = FittedAdapter.load(tensors, about)
    names = [str(name) for name in about["all_class_names"]]
    seen = torch.tensor(trained_positions(about))
    if not about.get("template"):
        return _from_features(folder, about, adapter, names, seen, bank, features)
    opened = bank_of_run(folder.path, about, bank)
    encoder = encoder or open_encoder(folder, about, checkpoint)
    opened.check_encoder(encoder)
    if encoder.fingerprint != about["encoder"]:
        raise UserError(
            f"The run was trained on features of {about['encoder']}, not of {encoder.fingerprint}."
        )
    sentences = _sentences_of(opened, about["dataset"], len(names))
    classes = _classes(encoder, about, names, seen, sentences)
    return OpenedRun(
        folder, about, adapter, names, classes, sentences, encoder=encoder, bank=opened
    )


def _sentences_of(bank: PromptBank, dataset: str, classes: int) -> Sentences:
    """Return the kept prompts of all classes."""
    known = {part.dataset for part in bank.metadata.datasets}
    name = dataset if dataset in known else ""
    texts: list[str] = []
    owners: list[int] = []
    vectors = []
    for class_id in range(classes):
        kept = bank.prompts(class_id, dataset=name)
        texts += kept
        owners += [class_id] * len(kept)
        vectors.append(np.asarray(bank.vectors.take(bank.kept_rows(class_id, name)), np.float32))
    stacked = np.concatenate(vectors) if texts else np.zeros((0, bank.metadata.dim), np.float32)
    return Sentences(texts, F.normalize(torch.from_numpy(stacked), dim=-1), owners)


def _classes(
    encoder: Encoder, about: dict[str, Any], names: list[str], seen: Tensor, sentences: Sentences
) -> ClassSet:
    """Return the class texts as training made them: template, all templates, mean sentence."""
    from ...pipeline.datasets import load_manifest
    from ...pipeline.embed.texts import class_embeddings
    from ...pipeline.paths import is_plain_name

    template = torch.from_numpy(class_embeddings(encoder, names, [about["template"]])).float()
    ensemble = template
    if (about.get("class_text") or {}).get("base") == "ensemble":
        dataset = str(about["dataset"])
        if not is_plain_name(dataset):
            raise UserError(f"The run names its data set {dataset!r}, which is no plain name.")
        manifest = load_manifest(dataset)
        every = list(dict.fromkeys([*manifest.templates, *manifest.ensemble]))
        ensemble = torch.from_numpy(class_embeddings(encoder, names, every)).float()
    total = torch.zeros_like(template)
    total.index_add_(0, torch.tensor(sentences.class_ids, dtype=torch.long), sentences.vectors)
    some = total.norm(dim=-1) > 0
    described = torch.where(some[:, None], F.normalize(total, dim=-1), template)
    return ClassSet(template, ensemble, described, None, seen, tuple(names), some)


def _from_features(
    folder: RunFolder,
    about: dict[str, Any],
    adapter: FittedAdapter,
    names: list[str],
    seen: Tensor,
    bank: str | Path | None,
    features: str | Path | None,
) -> OpenedRun:
    """Open a run that was trained on a file of features."""
    from ..config import Config

    path = _feature_file(folder, about, features, Config.from_yaml(folder.path / "config.yaml"))
    opened = bank_of_run(folder.path, about, bank) if about.get("bank") else None
    source = FileSource(path, opened)
    texts = source.texts
    trained = seen.tolist()
    order = sorted((i for i in range(len(names)) if trained[i] >= 0), key=lambda i: trained[i])
    data = source.draw(shots_of(about), int(about.get("seed", 1)))
    classes = data.class_set(range(len(names)), seen=order)
    notes: list[str] = []
    if opened is not None:
        sentences = _sentences_of(opened, about["dataset"], len(names))
    else:
        sentences = _written_in(source)
        if sentences is None:
            whole = torch.from_numpy(texts.described).float()
            told = [f"(all that is written about {name})" for name in names]
            sentences = Sentences(told, whole, list(range(len(names))), whole=True)
            notes.append(
                "The feature file keeps no sentences, only one vector for all that is written"
                " about a class: whole classes are named instead."
            )
    return OpenedRun(folder, about, adapter, names, classes, sentences, source, None, opened, notes)


def _feature_file(
    folder: RunFolder, about: dict[str, Any], given: str | Path | None, config: Any
) -> Path:
    """Return the feature file of the run: the one given, or one of the recorded content."""
    wanted = about.get("features_sha256")
    recorded = config.data.features
    name = Path(recorded).name
    if given:
        if not Path(given).is_file():
            raise UserError(f"There is no feature file {given}.")
        if wanted and hash_file(given) != wanted:
            raise UserError(f"{given} is not the feature file that {folder.path} was trained on.")
        return Path(given)
    for place in (Path(recorded), folder.path / name, folder.path.parent / name):
        there = wanted and place.suffix == ".safetensors" and place.is_file()
        if there and hash_file(place) == wanted:
            return place
    raise UserError(
        f"The feature file that {folder.path} was trained on ({name or 'unknown'}) is not here, or"
        " it changed since.",
        "Say where it is: --features FILE.",
    )


def _written_in(source: FileSource) -> Sentences | None:
    """Return sentences that a feature file keeps: ``prompt_texts`` beside their vectors."""
    import json

    written = source.metadata.get("prompt_texts")
    texts = source.texts
    if not written or "prompt_text.features" not in source.tensors:
        return None
    try:
        lists = json.loads(written)
        flat = [(i, j, str(t)) for i, own in enumerate(lists) for j, t in enumerate(own)]
        vectors = np.stack([texts.prompts[i, j] for i, j, _ in flat])
    except (ValueError, TypeError, IndexError) as error:
        raise UserError(
            f"prompt_texts of {source.path} does not fit its prompt_text.features.",
            "It is a JSON list of one list of sentences a class, in the order of the vectors.",
        ) from error
    return Sentences([t for _, _, t in flat], torch.from_numpy(vectors), [i for i, _, _ in flat])
