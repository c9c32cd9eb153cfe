"""Gradient descent on Eq. 4 and KL to zero-shot CLIP: epochs, learning rates, the loss of a batch.

b images in a batch, c classes, k prompts of a class, d embedding width.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ...pipeline.errors import UserError
from .checkpoint import load_checkpoint, save_checkpoint
from .model import Adapter, Aggregator, clip_score, distillation_loss
from .problem import FewShot
from .recipe import Recipe
from .recorded_step import RecordedStep, can_record
from .seeds import Seeds


class Descent:
    """The state of a training between two epochs, and one epoch of work.

    On an Nvidia GPU a step is recorded once and replayed (:mod:`.recorded_step`), since the host
    takes longer to ask for its many small kernels than the device to run them.
    """

    def __init__(self, data: FewShot, recipe: Recipe, seeds: Seeds, record: bool = True) -> None:
        """Start from the seeds; ``record=False`` asks for every kernel anew, on any device."""
        self.data, self.recipe, self.seeds = data, recipe, seeds
        self.epochs = recipe.epochs_for(data.shots, len(data.w))
        self.steps = math.ceil(len(data.x) / recipe.batch_size)
        self.history: list[dict[str, float]] = []
        device = data.x.device
        self.labels = data.y.cpu()
        self.records = record and can_record(data, recipe)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seeds.init)
            scale = recipe.temperature or data.scale
            self.adapter = Adapter(recipe, data.x.mean(0), data.w, scale).to(device)
            self.aggregator = self._aggregator().to(device) if recipe.distils else None
        self.zero_shot = F.log_softmax(self.adapter.scale * data.x @ data.w.T, -1)
        self.optimiser = self._optimiser()
        self._names: list[str] = []
        self._replay = RecordedStep(self._losses_of_rows, self._descend, recipe.batch_size)

    def _aggregator(self) -> Aggregator:
        a = self.recipe.aggregator
        return Aggregator(self.data.w.shape[1], a.kind, a.query, a.heads, a.ffn, a.identity)

    def _optimiser(self) -> torch.optim.Optimizer:
        r, delta = self.recipe, self.adapter.delta
        shared = [p for m in self._modules().values() for p in m.parameters() if p is not delta]
        groups: list[dict[str, Any]] = [
            {"params": shared, "lr": r.lr, "weight_decay": r.weight_decay, "peak": r.lr}
        ]
        if delta is not None:
            lr = r.seen.residual_lr
            groups.append({"params": [delta], "lr": lr, "weight_decay": 0.0, "peak": lr})
        if self.records:  # a recorded step reads its learning rate from the device
            for group in groups:
                group["lr"] = torch.tensor(group["lr"], device=self.data.x.device)
        if r.optimiser == "sgd":
            return torch.optim.SGD(groups, lr=r.lr, momentum=0.9, fused=self.records or None)
        return torch.optim.AdamW(groups, lr=r.lr, fused=True, capturable=self.records)

    def run_epoch(self) -> dict[str, float]:
        """Go through all images once."""
        epoch = len(self.history)
        generator = torch.Generator().manual_seed(_mix(self.seeds.order, epoch))
        order = torch.randperm(len(self.data.x), generator=generator)
        steps: list[Tensor] = []
        self.adapter.train()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(_mix(self.seeds.order, epoch) + 1)  # views, the random aggregator
            for step, rows in enumerate(order.split(self.recipe.batch_size)):
                self._set_rates(epoch * self.steps + step)
                steps.append(self._step(rows))
        # read once an epoch: to read a loss makes the host wait for the device
        read = torch.stack(steps).tolist()
        for step, values in enumerate(read):
            if not all(map(math.isfinite, values)):
                raise _not_finite(dict(zip(self._names, values)), self.recipe, epoch, step)
        record: dict[str, float] = {"epoch": epoch + 1}
        sizes = [len(rows) for rows in order.split(self.recipe.batch_size)]
        for number, name in enumerate(self._names):
            whole = sum(values[number] * n for values, n in zip(read, sizes))
            record[name] = whole / len(order)
        self.history.append(record)
        return record

    def _set_rates(self, step: int) -> None:
        factor = _schedule(self.recipe.schedule, step, self.epochs * self.steps)
        for group in self.optimiser.param_groups:
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(group["peak"] * factor)
            else:
                group["lr"] = group["peak"] * factor

    def _step(self, rows: Tensor) -> Tensor:
        """Descend on some images, (b,) on the host, and return their losses, on the device."""
        device = self.data.x.device
        pick = None
        if self.data.views is not None and self.recipe.views:
            pick = torch.randint(self.data.views.shape[1], (len(rows),))
        if self.records:
            pick = torch.zeros_like(rows) if pick is None else pick
            return self._replay(torch.stack([rows, pick]).to(device, non_blocking=True))
        # the host knows without asking the device which classes a batch has
        present, position = (
            part.to(device, non_blocking=True)
            for part in self.labels[rows].unique(return_inverse=True)
        )
        rows = rows.to(device, non_blocking=True)
        pick = None if pick is None else pick.to(device)
        return self._descend(self._losses(rows, pick, (present, position)))

    def _descend(self, losses: dict[str, Tensor]) -> Tensor:
        self._names, each = list(losses), torch.stack(list(losses.values()))
        self.optimiser.zero_grad(set_to_none=True)
        each.sum().backward()
        self.optimiser.step()
        return each.detach()

    def _losses_of_rows(self, rows_and_pick: Tensor) -> dict[str, Tensor]:
        """Return the loss of (2, b) numbers of images and of views, in shapes that b alone sets."""
        rows, pick = rows_and_pick
        wanted = self.data.views is not None and self.recipe.views
        return self._losses(rows, pick if wanted else None, None)

    def _losses(
        self, rows: Tensor, pick: Tensor | None, classes: tuple[Tensor, Tensor] | None
    ) -> dict[str, Tensor]:
        """Return the weighted terms of the loss for some images (Eq. 4 and what is added).

        Args:
            rows: (b,) numbers of images. pick: (b,) numbers of their augmented views, if wanted.
            classes: those of the batch, and the place of each image among them (b,); without it
                prompts are aggregated an image, which is the same and has one shape for all
                batches.
        """
        data, recipe, adapter = self.data, self.recipe, self.adapter
        x, y = data.x[rows], data.y[rows]
        if pick is not None and data.views is not None:
            x = data.views[rows, pick]
        h = adapter.embed(x)
        logits = adapter.general(x, data.w, h)
        losses = {"cross_entropy": F.cross_entropy(logits, y)}
        if recipe.zero_shot:
            kl = F.kl_div(
                F.log_softmax(logits, -1),
                self.zero_shot[rows],
                reduction="batchmean",
                log_target=True,
            )
            losses["zero_shot"] = recipe.zero_shot * kl
        if self.aggregator is not None and h is not None:
            target = self._target(self.aggregator, x, y, classes)
            if recipe.aggregator.reward and target.requires_grad:
                losses["reward"] = -recipe.aggregator.reward * clip_score(x, target)
            target = target if recipe.aggregator.joint else target.detach()
            losses["distillation"] = recipe.distillation * distillation_loss(h, target)
        if adapter.delta is not None:
            losses["seen"] = F.cross_entropy(adapter.special(x, data.w), y)
            losses["penalty"] = recipe.seen.penalty * adapter.delta.square().sum(-1).mean()
        return losses

    @torch.no_grad()
    def targets(self) -> Tensor:
        """Return p^a (n, d) of every training image; the class text where nothing is distilled."""
        data = self.data
        if self.aggregator is None:
            return data.w[data.y]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seeds.order)  # the random aggregator
            classes = data.y.unique(return_inverse=True)
            return self._target(self.aggregator.eval(), data.x, data.y, classes)

    def _target(
        self,
        aggregator: Aggregator,
        x: Tensor,
        y: Tensor,
        classes: tuple[Tensor, Tensor] | None,
    ) -> Tensor:
        """Return p^a (b, d): once a class, or once an image where the query sees the image."""
        prompts, mask = self.data.prompts, self.data.mask
        limit = self.recipe.aggregator.prompts or prompts.shape[1]
        if classes is None or self.recipe.aggregator.query == "image":
            return aggregator(prompts[y, :limit], mask[y, :limit], x)
        present, position = classes
        return aggregator(prompts[present, :limit], mask[present, :limit])[position]

    def save(self, path: Path) -> None:
        """Write modules, optimiser and history. Randomness needs no state: see :func:`fit`."""
        state = {"key": self._key(), "history": self.history}
        save_checkpoint(path, self._modules(), self.optimiser, state)

    def restore(self, path: Path) -> None:
        """Continue from a checkpoint of the same recipe, seeds and sizes; ignore any other."""
        state = load_checkpoint(path, self._modules(), self.optimiser, self._key())
        self.history = state["history"] if state else []

    def _modules(self) -> dict[str, torch.nn.Module]:
        parts = {"adapter": self.adapter, "aggregator": self.aggregator}
        return {name: module for name, module in parts.items() if module is not None}

    def _key(self) -> str:
        sizes = [list(self.data.x.shape), list(self.data.prompts.shape)]
        return json.dumps([self.recipe.model_dump(mode="json"), vars(self.seeds), sizes])


def _mix(seed: int, epoch: int) -> int:
    """Return a seed for one epoch that no other epoch or nearby seed has."""
    return (seed * 1_000_003 + epoch) * 2 % (2**62)


def _schedule(kind: str, step: int, total: int) -> float:
    """Return the factor of the peak learning rate.

    ``cosine`` falls from 1 to 0; ``one-cycle`` first rises from 1/25 over 30 % of the steps.
    """
    if kind == "cosine":
        return 0.5 * (1 + math.cos(math.pi * step / total))
    rise = max(1, round(0.3 * total))
    if step < rise:
        return 0.04 + 0.96 * 0.5 * (1 - math.cos(math.pi * step / rise))
    return 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, total - rise)))


def _not_finite(losses: dict[str, float], recipe: Recipe, epoch: int, step: int) -> UserError:
    bad = [name for name, loss in losses.items() if not math.isfinite(loss)]
    return UserError(
        f"Training stopped: the {' and '.join(bad) or 'summed'} loss is not finite in epoch"
        f" {epoch + 1}, step {step + 1}, with learning rate {recipe.lr:g}.",
        "Lower lr in the recipe; if it happens in the first step, look at the features.",
    )
