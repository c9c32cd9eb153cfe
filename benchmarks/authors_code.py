"""Our baselines beside the code of their authors, on the same draws of cached features.

    python benchmarks/authors_code.py CLONES FEATURES.safetensors --shots 4 --seeds 0,1,2

CLONES holds jusiro/CLAP, gaopengcuhk/Tip-Adapter, yangyangyang127/APE, lyymuwu/TIMO,
TJU-sjyj/AMU-Tuning, and omarnust/BReg-Adapter for its copy of ProKeR, each under its own name.
FEATURES is a file of benchmarks/study_data.py; without validation images only ZS-LP and CLAP are
run. What these clones import and never use here (an encoder, a trainer, image tools) is replaced by
empty modules, and ``.cuda()`` does nothing. Hyper-parameters are theirs; only validation images
choose. Printed are test accuracies, and seconds of the processor for training, search and scoring.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import math
import os
import re
import shutil
import sys
import tempfile
import time
import types
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import torch
import torch.nn.functional as F
from distillation_study import ImageNet
from torch import Tensor

from aape.adapter.baselines import choose_baselines
from aape.adapter.baselines.amu_tuning import _ALPHAS
from aape.adapter.baselines.timo import with_template
from aape.adapter.classification.feature_file import FileSource
from aape.adapter.method.problem import ClassSet, FewShot

UNUSED = ("clip", "cv2", "datasets", "torchvision")


@contextlib.contextmanager
def their_modules(clone: Path) -> Iterator[Callable[[str], Any]]:
    """Import modules of a clone, without leaving a trace of them."""
    before, path, folder = dict(sys.modules), list(sys.path), Path.cwd()

    class Empty:
        """Finds an empty module for everything below the unused ones."""

        def find_spec(self, name: str, *_: Any) -> Any:
            if name.split(".")[0] in UNUSED:
                return importlib.util.spec_from_loader(name, self)  # type: ignore[attr-defined]
            return None

        def create_module(self, spec: Any) -> types.ModuleType:
            module = MagicMock(name=spec.name)
            module.__path__, module.__spec__, module.__all__ = [], spec, []
            return module

        def exec_module(self, module: Any) -> None:
            """Nothing to run."""

    sys.path.insert(0, str(clone))
    finder: Any = Empty()
    sys.meta_path.insert(0, finder)
    os.chdir(clone)
    try:
        yield importlib.import_module
    finally:
        os.chdir(folder)
        sys.meta_path.remove(finder)
        sys.path[:] = path
        for name in set(sys.modules) - set(before):
            if getattr(sys.modules[name], "__file__", None) is None or str(clone) in str(
                sys.modules[name].__file__
            ):
                del sys.modules[name]


def plain(module: Any) -> Any:
    """Give a module of theirs our accuracy: theirs does not run with today's numpy."""
    module.cls_acc = score
    return module


def score(logits: Tensor, y: Tensor) -> float:
    """Accuracy in percent."""
    return float((logits.argmax(1) == y).float().mean() * 100)


def clap(clones: Path, data: FewShot, x: Tensor, y: Tensor, constraint: str) -> float:
    """Their prototypes, penalty and logits; their schedule, for which they rely on Dassl."""
    with their_modules(clones / "CLAP") as load:
        source = (clones / "CLAP" / "trainers" / "adapters.py").read_text()
        # the trainer registers itself by a decorator that is empty here: only the classes are kept
        scope: dict[str, Any] = {"__name__": "adapters"}
        head = source[source.index("class AdapterMethod") : source.index("class CustomCLIP")]
        load("torch")
        head = "import torch, numpy as np\nimport torch.nn as nn\n" + head
        exec(compile(head, "clap", "exec"), scope)
    cfg = MagicMock()
    cfg.TRAINER.ADAPTER.INIT, cfg.TRAINER.ADAPTER.CONSTRAINT = "ZS", constraint
    clip = types.SimpleNamespace(dtype=torch.float32, logit_scale=0)
    model = scope["AdapterMethod"](cfg, clip, data.raw_w)
    model.device = "cpu"
    if constraint != "none":
        model.init_lagrangian_multipliers(data.y, data.scale * data.x @ data.w.T)

    def logits(x: Tensor) -> Tensor:
        w = model()
        return data.scale * x @ (w / w.norm(dim=-1, keepdim=True)).T

    optimiser = torch.optim.SGD([model.prototypes], lr=0.1, momentum=0.9)
    generator, n = torch.Generator().manual_seed(0), len(data.x)
    for epoch in range(300):
        rate = 1e-5 if epoch == 0 else 0.05 * (1 + math.cos(math.pi * (epoch - 1) / 300))
        optimiser.param_groups[0]["lr"] = rate
        order = torch.randperm(n, generator=generator)
        for batch in range(max(1, n // 256)):
            rows = order[256 * batch : 256 * (batch + 1)]
            loss = F.cross_entropy(logits(data.x[rows]), data.y[rows])
            if constraint != "none":
                loss = loss + model.zero_shot_constraint()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    return score(logits(x), y)


def one_hot(data: FewShot) -> Tensor:
    """Labels (n, c), sorted by class as all these codes expect."""
    return F.one_hot(data.y, len(data.w)).float()


def tip(clones: Path, data: FewShot, x: Tensor, y: Tensor, scale: list[float]) -> float:
    """Their search, in one of their ranges."""
    with their_modules(clones / "Tip-Adapter") as load, contextlib.redirect_stdout(io.StringIO()):
        tools = plain(load("utils"))
        cfg = {"search_hp": True, "search_scale": scale, "search_step": [200, 20]}
        held = data.val_x, data.val_y
        beta, alpha = tools.search_hp(cfg, data.x.T, one_hot(data), *held, data.w.T)
    votes = (-(beta - beta * (x @ data.x.T))).exp() @ one_hot(data)
    return score(100 * x @ data.w.T + alpha * votes, y)


def ape(clones: Path, data: FewShot, x: Tensor, y: Tensor, share: float) -> float:
    """Their function prints what it finds."""
    spoken = io.StringIO()
    with tempfile.TemporaryDirectory() as folder:
        clone = Path(folder) / "APE"
        shutil.copytree(clones / "APE", clone, ignore=shutil.ignore_patterns(".git"))
        (clone / "caches" / "x").mkdir(parents=True)
        with their_modules(clone) as load, contextlib.redirect_stdout(spoken):
            cfg = {
                "search_scale": [20, 10, 1],  # their range of Aircraft
                "search_step": [50, 20, 10],  # every fourth β and every second γ
                "dataset": "x", "backbone": "RN50", "shots": data.shots, "init_beta": 1,
                "init_alpha": 2, "init_gamma": 0.1, "w_training_free": [0.7, 0.3],
                "training_free_feat_num": int(share * data.w.shape[1]),
            }  # fmt: skip
            held = data.val_x, data.val_y
            plain(load("main")).APE(cfg, data.x.T, one_hot(data), *held, x, y, data.w.T)
    return float(re.findall(r"APE's test accuracy: (\d+\.\d+)", spoken.getvalue())[-1])


def proker(clones: Path, data: FewShot, x: Tensor, y: Tensor, ranges: str) -> float:
    """Their closed form and their search in the range of one of their data sets."""
    with tempfile.TemporaryDirectory() as folder:
        clone = Path(folder) / "ProKeR"
        shutil.copytree(clones / "BReg-Adapter", clone, ignore=shutil.ignore_patterns(".git"))
        with their_modules(clone) as load, contextlib.redirect_stdout(io.StringIO()):
            package = types.ModuleType("trainers")
            package.__path__ = [str(clone / "trainers")]
            sys.modules["trainers"] = package
            function = plain(load("trainers.proker")).ProKeR
            held = data.val_x, data.val_y
            logits = function(data.x, data.y, *held, x, data.w.T, ranges, data.shots, 0, "")
    return score(logits, y)


def timo(clones: Path, data: FewShot, x: Tensor, y: Tensor, search: bool, copies: int) -> float:
    """Their functions; ten copies stand for their ten augmented views."""
    with their_modules(clones / "TIMO") as load, contextlib.redirect_stdout(io.StringIO()):
        models, tools = plain(load("models")), load("utils")
        data = with_template(data)
        cfg = {"dataset": "x"}
        means = torch.stack([data.x[data.y == i].mean(0) for i in range(len(data.w))])
        means = F.normalize(means, dim=-1)
        if search:
            held = data.val_x, data.val_y
            text, match = tools.image_guide_text_search(cfg, data.prompts, *held, means)
        else:
            text, match = tools.image_guide_text(cfg, data.prompts, means, return_matching=True)
            text = text.t()
        return models.TIMO(
            cfg, data.val_x, data.val_y, x, y, text, data.prompts, match,
            (data.x.repeat(copies, 1), data.y.repeat(copies)), search, 10 if search else -1,
        )  # fmt: skip


def amu(clones: Path, data: FewShot, x: Tensor, y: Tensor) -> float:
    """Their model with CLIP's features on both branches, their optimiser and schedule.

    α of the answer is chosen as ours is: theirs is fixed for one data set.
    """
    source = (clones / "AMU-Tuning" / "clip" / "amu.py").read_text()
    source = re.sub(r"from torchvision.*|^tfm_.*$", "", source, flags=re.M)
    scope: dict[str, Any] = {"__name__": "amu"}
    with contextlib.redirect_stdout(io.StringIO()):
        exec(compile(source, "amu", "exec"), scope)
        model = scope["AMU_Model"](
            None, None, [data.x, data.y], data.w.T, data.x.shape[1], len(data.w), 0.35,
            0.5,
            "moment", 0.4,
        )  # fmt: skip
    optimiser = torch.optim.AdamW(
        model.aux_adapter.parameters(), weight_decay=0.01, lr=1e-3, eps=1e-4
    )
    n, generator = len(data.x), torch.Generator().manual_seed(0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 50 * math.ceil(n / 8))
    for _ in range(50):
        for rows in torch.randperm(n, generator=generator).split(8):
            found = model(None, data.x[rows].clone(), data.x[rows].clone(), data.y[rows])
            optimiser.zero_grad()
            found["loss"].backward()
            optimiser.step()
            schedule.step()

    def right(alpha: float, x: Tensor, y: Tensor) -> float:
        model.alpha = alpha
        with torch.no_grad():
            return score(model(None, x.clone(), x.clone(), y)["logits"], y)

    return right(max(_ALPHAS, key=lambda a: right(a, data.val_x, data.val_y)), x, y)


def theirs(clones: Path, data: FewShot, x: Tensor, y: Tensor) -> dict[str, Callable[[], float]]:
    """Return what to run beside each baseline."""
    return {
        "linear-probe": lambda: clap(clones, data, x, y, "none"),
        "clap": lambda: clap(clones, data, x, y, "l2"),
        "tip-adapter": lambda: tip(clones, data, x, y, [50, 50]),
        "ape": lambda: ape(clones, data, x, y, 700 / 1024),
        "proker": lambda: proker(clones, data, x, y, "dtd"),
        "timo": lambda: timo(clones, data, x, y, False, 10),
        "timo-s": lambda: timo(clones, data, x, y, True, 10),
        "amu": lambda: amu(clones, data, x, y),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("clones", type=Path)
    parser.add_argument("features", type=Path)
    parser.add_argument("--shots", type=int, default=4)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    torch.Tensor.cuda = lambda self, *_, **__: self  # type: ignore[method-assign]
    file = FileSource(options.features)
    source = ImageNet(options.features, False) if "all.features" in file.tensors else file
    for seed in map(int, options.seeds.split(",")):
        draw = source.draw(options.shots, seed)
        ids = list(range(len(draw.texts.names)))
        data, classes = sorted_by_class(draw.few_shot(ids)), draw.class_set(ids, seen=ids)
        x, y = torch.from_numpy(draw.test.x), torch.from_numpy(draw.test.y)
        run(options, data, classes, x, y, seed)


def run(
    options: argparse.Namespace, data: FewShot, classes: ClassSet, x: Tensor, y: Tensor, seed: int
) -> None:
    """Print one line a method."""
    choose_baselines(["linear-probe"])[0].fit(data, seed)  # the first step imports half of torch
    for name, function in theirs(options.clones.resolve(), data, x, y).items():
        if options.only and name not in options.only.split(","):
            continue
        if not len(data.val_y) and name not in ("linear-probe", "clap"):
            continue
        start = time.process_time()
        fitted = choose_baselines([name])[0].fit(data, seed)
        with torch.no_grad():
            ours = score(fitted.logits(x, classes), y)
        between = time.process_time()
        other = function()
        took = f"{between - start:.2f} and {time.process_time() - between:.2f} s"
        where = f"{data.shots} shots, seed {seed}, {name}"
        print(f"{where}: ours {ours:.2f}, theirs {other:.2f}; {took}", flush=True)


def sorted_by_class(data: FewShot) -> FewShot:
    """Order the training images by class."""
    order = data.y.argsort(stable=True)
    return replace(data, x=data.x[order], y=data.y[order])


if __name__ == "__main__":
    main()
