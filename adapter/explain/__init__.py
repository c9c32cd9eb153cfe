"""Explain a run: why a photo was called what it was called, and what carries a class."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from ...pipeline.errors import UserError
from ...pipeline.paths import is_file
from ..shots import shots_of

if TYPE_CHECKING:
    import torch

    from ...pipeline.encoders.base import Encoder
    from .classes import ClassExplanation
    from .opened import OpenedRun
    from .photo import PhotoExplanation

__all__ = ["explain"]


def explain(
    run: str | Path,
    photo: str | Path | None = None,
    *,
    class_name: str = "",
    top: int = 3,
    bank: str | Path | None = None,
    features: str | Path | None = None,
    root: str | Path | None = None,
    encoder: Encoder | None = None,
    checkpoint: str = "",
    picture: str | Path | None = None,
) -> PhotoExplanation | ClassExplanation:
    """Explain a photo, or a class, by the adapter of a run.

    Args:
        run: a run folder of classification.
        photo: an image file; of a run on a feature file, a row such as ``"test:12"``.
        class_name: a class instead, by name or id.
        top: how many of the likeliest classes.
        bank, features: what the run was trained on, where it moved; its content must be the same.
        root: folder of the data set's photos, where they lie in no usual place.
        encoder: an open encoder instead of the one that the run names.
        checkpoint: local weights of the encoder; where they lie is never taken from the run.
        picture: also draw it, to an ``.svg`` or a ``.png`` file.

    Returns:
        For a photo: its likeliest classes with what each term adds (the sum is the logit), and the
        sentences nearest to it. For a class: its sentences, confusions and what they share.

    Raises:
        UserError: the run has no adapter, what it was trained on is not here, or the photo cannot
            be read.
    """
    from .opened import open_run

    if bool(photo) == bool(class_name):
        raise UserError(
            "Name what to explain: one photo, or one class.",
            "aape explain RUN PHOTO, or aape explain RUN --class NAME.",
        )
    if picture:
        from ..explain.picture import require_picture_name

        require_picture_name(picture)
    opened = open_run(run, bank=bank, features=features, encoder=encoder, checkpoint=checkpoint)
    if class_name:
        from .classes import explain_class_of

        number = opened.class_id(class_name)
        photos, why = training_photos(opened, root)
        found = explain_class_of(opened, number, photos, why)
        if picture:
            from ..explain.picture import draw_class

            draw_class(found, picture)
        return found
    assert photo is not None
    from ..explain.photo import explain_features

    x, truth = _features(opened, photo)
    explained = explain_features(opened, x, str(photo), top=top, truth=truth)
    if picture:
        from ..explain.picture import draw_photo

        draw_photo(explained, picture)
    return explained


def _features(run: OpenedRun, photo: str | Path) -> tuple[torch.Tensor, str]:
    """Return x (d,) of a photo or of a row of the feature file, and its class where it is known."""
    import torch

    if run.source is None:
        from ...pipeline.embed.images import image_features

        if not is_file(photo):
            raise UserError(f"There is no photo {photo}.")
        assert run.encoder is not None
        return torch.from_numpy(image_features(run.encoder, [Path(photo)]).x)[0], ""
    match = re.fullmatch(r"(\w+):(\d+)", str(photo))
    if match is None:
        raise UserError(
            f"{run.folder.path} was trained on a file of features, which says nothing of photos.",
            "Name a row of the file, such as test:0, or train on a bank.",
        )
    split, row = match[1], int(match[2])
    images = run.source.split(split)
    if row >= len(images):
        raise UserError(f"The split {split} has {len(images)} rows: 0 to {len(images) - 1}.")
    return torch.from_numpy(images.x[row]).float(), run.names[int(images.y[row])]


def training_photos(
    run: OpenedRun, root: str | Path | None
) -> tuple[tuple[torch.Tensor, torch.Tensor] | None, str]:
    """Return features and labels of the training photos of all classes, or why there are none."""
    import torch

    shots, seed = shots_of(run.about), int(run.about.get("seed", 1))
    try:
        if run.source is not None:
            train = run.source.draw(shots, seed).train
        else:
            from ...pipeline.datasets import open_dataset
            from ...pipeline.paths import is_plain_name
            from ..classification.bank_source import BankSource

            name = str(run.about["dataset"])
            if not is_plain_name(name):
                raise UserError(f"The run names its data set {name!r}, which is no plain name.")
            assert run.bank is not None
            assert run.encoder is not None
            dataset = open_dataset(name, Path(root) if root else None)
            train = BankSource(run.bank, dataset, run.encoder, repeat=True).draw(shots, seed).train
    except UserError as error:
        return None, f"No training photos here, so only texts are compared. {error.message}"
    return (torch.from_numpy(train.x).float(), torch.from_numpy(train.y)), ""
