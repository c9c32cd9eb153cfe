"""The training loop of the method, and what it leaves behind.

b images in a batch, c classes, k prompts of a class, d embedding width.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ...pipeline.errors import UserError
from .adapter import FittedAdapter, staged_table
from .checkpoint import load_checkpoint, save_checkpoint
from .choose import choose
from .class_text import fit_by_convex_problems
from .discriminant import fit_discriminant, out_of_fold_scores
from .hold_out import Trust, choose_trust, distil_query
from .model import Adapter, Aggregator, clip_score, distillation_loss
from .problem import FewShot
from .recipe import Recipe, controlled
from .seeds import Seeds
from .terms import AdaptedHead, AsQuery, Gaussian, Residual, Term, ZeroShot

_FOLDS = 4


def fit(
    data: FewShot,
    recipe: Recipe,
    seed: int | Seeds,
    *,
    checkpoint: Path | None = None,
    on_epoch: Callable[[dict[str, float]], None] | None = None,
) -> FittedAdapter:
    """Train on one draw of shots.

    Randomness depends on the seeds and the number of the epoch alone, so a run that is killed and
    started again with the same ``checkpoint`` ends with the same bits on a CPU.

    Args:
        data: the training problem.
        recipe: how.
        seed: of initial weights and order; 0 is a seed like any other.
        checkpoint: file to continue from and to write after every epoch; removed at the end.
        on_epoch: called with the record of each epoch.

    Raises:
        UserError: the loss is not finite.
    """
    seeds = seed if isinstance(seed, Seeds) else Seeds(seed, seed)
    start = time.perf_counter()
    if recipe.kind == "convex":
        fitted = fit_by_convex_problems(data, recipe, seeds)
    else:
        fitted = _fit_by_gradient(data, recipe, seeds, checkpoint, on_epoch)
    fitted.seconds = time.perf_counter() - start
    if checkpoint is not None:
        checkpoint.unlink(missing_ok=True)
    return fitted


def _fit_by_gradient(
    data: FewShot,
    recipe: Recipe,
    seeds: Seeds,
    checkpoint: Path | None,
    on_epoch: Callable[[dict[str, float]], None] | None,
) -> FittedAdapter:
    """Train generator, head and residuals; then choose and add the other terms."""
    trainer = _Trainer(data, recipe, seeds)
    if checkpoint is not None:
        trainer.restore(checkpoint)
    if trainer.history and on_epoch:
        on_epoch({"resumed_at_epoch": len(trainer.history)})
    while len(trainer.history) < trainer.epochs:
        record = trainer.run_epoch()
        if on_epoch:
            on_epoch(record)
        if checkpoint is not None and len(trainer.history) < trainer.epochs:
            trainer.save(checkpoint)
    adapter = trainer.adapter.eval()
    trust, chosen = _choose_trust(data, recipe, seeds)
    terms: list[Term] = [ZeroShot(adapter.scale), AdaptedHead(adapter)]
    if trust.query:
        terms.append(AsQuery(distil_query(data, trainer.targets(), trust), adapter.scale))
    if adapter.delta is not None:
        terms.append(Residual(data.w, adapter.delta.detach(), adapter.scale))
    fitted = FittedAdapter(recipe, data.w, terms, {}, adapter.scale, history=trainer.history)
    fitted.table = staged_table(terms, trust.head, trust.query, 0.0)
    alpha = 0.0
    if recipe.seen.discriminant:
        gaussian = Gaussian(fit_discriminant(data.x, data.y, len(data.w)))
        alpha, score = _choose_alpha(fitted, data, gaussian)
        terms.append(gaussian)
        fitted.table = staged_table(terms, trust.head, trust.query, alpha)
        chosen |= {"alpha": alpha, "validation accuracy": score}
    fitted.chosen = chosen
    fitted.facts = {"alpha": alpha, "trust": asdict(trust)}
    return fitted


def _choose_trust(data: FewShot, recipe: Recipe, seeds: Seeds) -> tuple[Trust, dict[str, Any]]:
    """Let held-out classes decide how far new ones leave zero-shot CLIP."""
    bare = controlled(recipe, "no-seen-terms")

    def train(problem: FewShot) -> tuple[Adapter, Tensor]:
        trainer = _Trainer(problem, bare, seeds)
        while len(trainer.history) < trainer.epochs:
            trainer.run_epoch()
        return trainer.adapter, trainer.targets()

    return choose_trust(data, recipe, train, seeds.init)


def _choose_alpha(fitted: FittedAdapter, data: FewShot, gaussian: Gaussian) -> tuple[float, float]:
    """Return the weight of the Gaussian term and its accuracy: by validation, else by folds."""
    seen, c = fitted.recipe.seen, len(data.w)
    if len(data.val_y):
        y, start = data.val_y, fitted.logits(data.val_x, data.classes)
        term = gaussian.discriminant(data.val_x)
    elif data.shots >= 2:
        # the trained parts have seen these images, so the folds are judged beside zero-shot CLIP
        y, start = data.y, data.scale * data.x @ data.w.T
        term = out_of_fold_scores(data.x, data.y, c, min(_FOLDS, data.shots))
    else:
        y, start, term = data.y[:0], data.x[:0], data.x[:0]
    return choose(seen.alphas, lambda a: start + a * term, y, seen.fallback_alpha)


class _Trainer:
    """The state of a run between two epochs, and one epoch of work."""

    def __init__(self, data: FewShot, recipe: Recipe, seeds: Seeds) -> None:
        self.data, self.recipe, self.seeds = data, recipe, seeds
        self.epochs = recipe.epochs_for(data.shots, len(data.w))
        self.steps = math.ceil(len(data.x) / recipe.batch_size)
        self.history: list[dict[str, float]] = []
        device = data.x.device
        self.labels = data.y.cpu()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seeds.init)
            scale = recipe.temperature or data.scale
            self.adapter = Adapter(recipe, data.x.mean(0), data.w, scale).to(device)
            self.aggregator = self._aggregator().to(device) if recipe.distils else None
        self.zero_shot = F.log_softmax(self.adapter.scale * data.x @ data.w.T, -1)
        self.optimiser = self._optimiser()

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
        if r.optimiser == "sgd":
            return torch.optim.SGD(groups, lr=r.lr, momentum=0.9)
        return torch.optim.AdamW(groups, lr=r.lr, fused=True)

    def run_epoch(self) -> dict[str, float]:
        """Go through all images once."""
        epoch = len(self.history)
        generator = torch.Generator().manual_seed(_mix(self.seeds.order, epoch))
        order = torch.randperm(len(self.data.x), generator=generator)
        steps: list[Tensor] = []
        names: list[str] = []
        self.adapter.train()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(_mix(self.seeds.order, epoch) + 1)  # views, the random aggregator
            for step, rows in enumerate(order.split(self.recipe.batch_size)):
                factor = _schedule(
                    self.recipe.schedule, epoch * self.steps + step, self.epochs * self.steps
                )
                for group in self.optimiser.param_groups:
                    group["lr"] = group["peak"] * factor
                losses = self._losses(rows)
                names, each = list(losses), torch.stack(list(losses.values()))
                self.optimiser.zero_grad(set_to_none=True)
                each.sum().backward()
                self.optimiser.step()
                steps.append(each.detach())
        # read once an epoch: to read a loss makes the host wait for the device
        read = torch.stack(steps).tolist()
        for step, values in enumerate(read):
            if not all(map(math.isfinite, values)):
                raise _not_finite(dict(zip(names, values)), self.recipe, epoch, step)
        record: dict[str, float] = {"epoch": epoch + 1}
        sizes = [len(rows) for rows in order.split(self.recipe.batch_size)]
        for number, name in enumerate(names):
            whole = sum(values[number] * n for values, n in zip(read, sizes))
            record[name] = whole / len(order)
        self.history.append(record)
        return record

    def _losses(self, rows: Tensor) -> dict[str, Tensor]:
        """Return the weighted terms of the loss for some images (Eq. 4 and what is added).

        ``rows`` are on the host, where it is known without asking the device which classes they are
        of.
        """
        data, recipe, adapter = self.data, self.recipe, self.adapter
        labels = self.labels[rows]
        rows = rows.to(data.x.device, non_blocking=True)
        x, y = data.x[rows], data.y[rows]
        if data.views is not None and recipe.views:
            pick = torch.randint(data.views.shape[1], (len(rows),)).to(x.device)
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
            target = self._target(self.aggregator, x, y, labels)
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
            return self._target(self.aggregator.eval(), data.x, data.y, self.labels)

    def _target(self, aggregator: Aggregator, x: Tensor, y: Tensor, labels: Tensor) -> Tensor:
        """Return p^a (b, d): once a class, or once an image where the query sees the image.

        ``labels`` are ``y`` on the host.
        """
        prompts, mask = self.data.prompts, self.data.mask
        limit = self.recipe.aggregator.prompts or prompts.shape[1]
        if self.recipe.aggregator.query == "image":
            return aggregator(prompts[y, :limit], mask[y, :limit], x)
        present, position = (
            part.to(y.device, non_blocking=True) for part in labels.unique(return_inverse=True)
        )
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
