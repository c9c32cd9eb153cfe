"""The generator learned on captioned images: one ``h`` for retrieval, captioning and answering.

    b  images in a batch       x    (b, d)     image features, unit length
    m  captions of an image    p    (b, m, d)  caption features, zero padded; mask (b, m)
    d  embedding width         h(x) (b, d)     the AAPE, here not followed by ``g``

Loss (Huang et al. 2024, section 3.2): ``L_task`` + λ·``L_distill`` with ``L_task`` the CLIP loss of
``h(x)`` against the captions. The aggregator learns from the reward CLIP-S(x, p^a), as in
classification.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ...pipeline.embed.spread import everywhere
from ...pipeline.errors import UserError
from ...pipeline.files import hash_value
from ...pipeline.progress import step
from ...pipeline.ranks import group
from ...pipeline.store import read_record, read_tensors, write_record, write_tensors
from ..method.checkpoint import load_checkpoint, save_checkpoint
from ..method.model import Aggregator, Generator, clip_score, distillation_loss
from ..metrics.recall import first_relevant_rank, recall_at
from .data import CaptionSet, caption_set, relevance_groups, some, training_and_validation
from .loss import caption_loss, caption_loss_part
from .settings import CaptionConfig

if TYPE_CHECKING:
    from ...pipeline.datasets import Dataset
    from ...pipeline.encoders.base import Encoder
    from ..run import RunFolder

WEIGHTS, DESCRIPTION = "caption_adapter.safetensors", "caption_adapter.json"
_STATES = 2  # version of the training states
_FIRST_NAMES = "mlp."  # what the names of tensors began with when h had a class of its own here


def caption_generator(config: CaptionConfig, mean_text: Tensor, mean_image: Tensor) -> Generator:
    """Return ``h`` in one of three forms; the residual ones start useful, their MLP at zero.

    The means are those of the training captions and images, each (d,).
    """
    dim, literal = len(mean_text), config.form == "literal"
    means = {} if literal else {"mean_text": mean_text, "mean_image": mean_image}
    return Generator(dim, config.width, residual=not literal, skip=config.form == "image", **means)


@dataclass
class CaptionAdapter:
    """What stays after training: ``h``; and where it came from."""

    generator: Generator
    config: CaptionConfig
    dataset: str
    encoder_fingerprint: str
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def parameters(self) -> int:
        """Number of trained values that are kept."""
        return sum(p.numel() for p in self.generator.parameters())

    @property
    def hash(self) -> str:
        """Tell two adapters apart, by their weights."""
        state = self.generator.state_dict()
        # under the names of the first files, so that prefixes trained on them are still found
        sums = {_FIRST_NAMES + name: v.double().sum().item() for name, v in state.items()}
        return hash_value(sums)[:16]

    def h(self, x: np.ndarray) -> np.ndarray:
        """Return h(x) of unit length, (n, d), for image features (n, d)."""
        with torch.no_grad():
            h = self.generator(torch.as_tensor(np.asarray(x, np.float32)))
            return F.normalize(h, dim=-1).numpy()

    def check_encoder(self, encoder: Encoder) -> None:
        """Raise :class:`UserError` if ``encoder`` is not the one that made the features."""
        if encoder.fingerprint != self.encoder_fingerprint:
            raise UserError(
                f"This adapter was trained on features of {self.encoder_fingerprint},"
                f" not of {encoder.fingerprint}.",
                "Use the same encoder, or train again.",
            )

    def save(self, folder: Path) -> None:
        """Write the weights and their description into ``folder``."""
        write_tensors(folder / WEIGHTS, self.generator.state_dict(), {"format": "pt"})
        write_record(
            folder / DESCRIPTION,
            {
                "config": self.config.model_dump(mode="json"),
                "dataset": self.dataset,
                "encoder": self.encoder_fingerprint,
                "details": self.details,
            },
        )

    @classmethod
    def load(cls, folder: Path) -> CaptionAdapter:
        """Read what :meth:`save` wrote.

        Raises:
            UserError: there is none in ``folder``, or it is damaged.
        """
        if not (folder / DESCRIPTION).exists():
            raise UserError(
                f"{folder} has no adapter trained on captions.",
                "Make one with: aape train-captions --dataset NAME --out FOLDER.",
            )
        about = read_record(folder / DESCRIPTION)
        config = CaptionConfig.parse(about["config"], str(folder / DESCRIPTION))
        stored, _ = read_tensors(folder / WEIGHTS)
        state = {name.removeprefix(_FIRST_NAMES): value for name, value in stored.items()}
        generator = caption_generator(config, state["mean_text"], state["mean_image"])
        generator.load_state_dict(state)
        return cls(
            generator.eval(), config, about["dataset"], about["encoder"], about.get("details", {})
        )


def check_adapters(adapters: Sequence[CaptionAdapter], encoder: Encoder, task: str) -> None:
    """Raise :class:`UserError` where there is no adapter, or one of another encoder."""
    if not adapters:
        raise UserError(f"{task} needs at least one adapter trained on captions.")
    for adapter in adapters:
        adapter.check_encoder(encoder)


def _finished(folder: Path, key: str) -> CaptionAdapter | None:
    """Return a finished training, or nothing where it is of other data or damaged."""
    if not (folder / DESCRIPTION).exists():
        return None
    try:
        done = CaptionAdapter.load(folder)
    except UserError as error:
        step(f"{error.message} It is trained again.")
        return None
    return done if done.details.get("key") == key else None


def train_captions(
    dataset: Dataset,
    encoder: Encoder,
    *,
    config: CaptionConfig | None = None,
    run: RunFolder | None = None,
    strict: bool = False,
) -> CaptionAdapter:
    """Train ``h`` on the captioned training images of ``dataset``; keep the best epoch on val.

    Of the processes that ``torchrun`` started (:func:`aape.pipeline.ranks.joined`) each computes a
    part of every batch; the losses are those of one process up to rounding.

    With ``run``, a killed training goes on after its last epoch, and a finished one with the same
    configuration, data and encoder is reused. The folder of the run has one folder a seed. Images
    that cannot be read are left out, unless ``strict``.

    Raises:
        UserError: no image has captions, or the loss is not finite.
    """
    config = config or CaptionConfig()
    images, validation = training_and_validation(dataset)
    images = some(images, config.max_images)
    validation = some(validation, config.max_validation)
    key = hash_value(
        {
            "config": config.model_dump(mode="json"),
            "encoder": encoder.fingerprint,
            "train": [[image.image_id, *image.captions] for image in images],
            "val": [image.image_id for image in validation],
        }
    )
    folder = run.path / "captions" / f"seed-{config.seed}" if run else None
    done = _finished(folder, key) if folder else None
    if everywhere(done is not None) and done is not None:
        step(f"Reusing the caption adapter of seed {config.seed} in {folder}.")
        if folder and group().first:
            _forget_states(folder, key)  # of a run that was killed between the two
        return done
    train = caption_set(encoder, images, "training", strict)
    val = caption_set(encoder, validation, "validation", strict)
    scale = config.temperature or encoder.logit_scale
    # a state of an older version, whose tensors had other names, is not gone on from
    checkpoint = folder / f"training-{key[:16]}-{_STATES}.safetensors" if folder else None
    generator, details = _fit(train, val, scale, config, checkpoint)
    name = dataset.manifest.name
    adapter = CaptionAdapter(generator, config, name, encoder.fingerprint, {"key": key, **details})
    if folder and group().first:
        if run:
            run.begin()
        adapter.save(folder)
        _forget_states(folder, key)
    group().wait()  # until it is there for all
    return adapter


def _forget_states(folder: Path, key: str) -> None:
    for state in folder.glob(f"training-{key[:16]}*.safetensors"):
        state.unlink(missing_ok=True)


def _fit(
    train: CaptionSet, val: CaptionSet, scale: float, config: CaptionConfig, checkpoint: Path | None
) -> tuple[Generator, dict[str, Any]]:
    processes = group()
    torch.manual_seed(config.seed)
    mean_text, mean_image = train.p[train.mask].mean(0), train.x.mean(0)
    generator = caption_generator(config, mean_text, mean_image)
    aggregator = Aggregator(len(mean_text), config.aggregator, identity=config.identity)
    module = torch.nn.ModuleDict({"generator": generator, "aggregator": aggregator})
    best = {name: value.clone() for name, value in generator.state_dict().items()}
    module["best"] = caption_generator(config, mean_text, mean_image)
    trained = [*generator.parameters(), *aggregator.parameters()]
    optimizer = torch.optim.AdamW(trained, lr=config.lr, weight_decay=config.weight_decay)
    history, losses = [_validate(generator, val)], []
    state = load_checkpoint(checkpoint, {"module": module}, optimizer) if checkpoint else None
    if state:
        history, losses = state["history"], state.get("losses", [])
        best = module["best"].state_dict()
        step(f"Going on after epoch {len(history) - 1} of {config.epochs}.")
    processes.agree(len(history) - 1, "how many epochs are done")
    batches = max(1, math.ceil(len(train.x) / config.batch_size))
    for epoch in range(len(history) - 1, config.epochs):
        order = np.random.default_rng([config.seed, epoch]).permutation(len(train.x))
        total = torch.zeros((), device=train.x.device)
        for number, rows in enumerate(np.array_split(order, batches)):
            if len(rows) < 2:
                continue
            done = (epoch * batches + number) / (config.epochs * batches)
            for param_group in optimizer.param_groups:
                param_group["lr"] = config.lr * min(1.0, 10 * done + 0.1) * (1 - done)
            batch = train.x[rows], train.p[rows], train.mask[rows]
            loss = _loss(generator, aggregator, batch, scale, config)
            total += loss.detach()
            optimizer.zero_grad()
            loss.backward()
            processes.add_up([p.grad for p in trained if p.grad is not None])
            optimizer.step()
        processes.add_up([total])
        if not torch.isfinite(total):  # asked once an epoch: to ask makes the host wait
            raise UserError(
                f"The loss is not finite in epoch {epoch + 1}.", "Lower the learning rate."
            )
        processes.follow(trained)  # processors of several kinds may round differently
        losses.append(float(total) / batches)
        history.append(processes.share(_validate(generator, val) if processes.first else None))
        if history[-1] >= max(history):
            best = {name: value.clone() for name, value in generator.state_dict().items()}
        if checkpoint and processes.first:
            module["best"].load_state_dict(best)
            told = {"history": history, "losses": losses}
            save_checkpoint(checkpoint, {"module": module}, optimizer, told)
    generator.load_state_dict(best)
    best_epoch = int(np.argmax(np.array(history)))
    details = {"val_recall": history, "train_loss": losses, "best_epoch": best_epoch}
    return generator.eval(), details


def _loss(
    generator: Generator,
    aggregator: Aggregator,
    batch: tuple[Tensor, Tensor, Tensor],
    scale: float,
    config: CaptionConfig,
) -> Tensor:
    """Return the loss of a batch (x, p, mask), or the part of it that is this process's.

    The parts add up to the loss, and so do their gradients. ``h`` is computed for all images, since
    each caption is compared with all of them and ``h`` is small; the aggregator and the comparison
    with captions, which cost the time, for the process's own images.
    """
    x, p, mask = batch
    own = group().part(len(x))
    if aggregator.kind == "random":  # one draw for all, whoever needs it
        target = aggregator(p, mask, x)[own]
    else:
        target = aggregator(p[own], mask[own], x[own])
    h = generator(x)
    if group().size == 1:
        loss = caption_loss(h, p, mask, scale, config.near_equal)
    else:
        loss = caption_loss_part(h, p, mask, scale, config.near_equal, own)
    if not len(target):  # more processes than images: a gradient of zeros
        return loss + 0 * target.sum()
    share = len(target) / len(x)
    loss = loss + share * config.distillation * distillation_loss(h[own], target.detach())
    return loss - share * config.reward * clip_score(x[own], target)


def _validate(generator: Generator, val: CaptionSet) -> float:
    """Return the mean of R@1, R@5 and R@10 over both directions with h(x), in percent."""
    with torch.no_grad():
        h = F.normalize(generator(val.x), dim=-1).numpy()
    texts, owner, _ = val.flat()
    groups = relevance_groups([image.captions for image in val.images])
    there = first_relevant_rank(h, texts, groups, groups[owner])
    back = first_relevant_rank(texts, h, groups[owner], groups)
    values = [*recall_at(there).values(), *recall_at(back).values()]
    return sum(values) / len(values)
