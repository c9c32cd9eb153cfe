"""All that a GPU should make fast, in one command that writes one JSON to send back.

    python benchmarks/gpu.py gpu.json            # or: make bench-gpu
    python benchmarks/gpu.py cpu.json --small    # the same code at sizes that a CPU can do

Synthetic features and random weights: what is measured is time. Every figure is the median of
several rounds after one that does not count, and the device is waited for on both sides.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from aape import __version__
from aape.adapter.method.problem import ClassSet, FewShot
from aape.adapter.method.recipe import load_recipe
from aape.adapter.method.seeds import Seeds
from aape.adapter.method.train import fit
from aape.pipeline.encoders.base import pick_device

# classes of the eleven data sets of the paper; base classes are the first half
ELEVEN = (1000, 100, 37, 196, 102, 101, 100, 397, 47, 10, 101)


def timed(work: Callable[[], Any], device: torch.device, rounds: int) -> float:
    """Return the median seconds of a round."""
    seconds = []
    for number in range(rounds + 1):
        wait(device)
        start = time.perf_counter()
        work()
        wait(device)
        if number:
            seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def wait(device: torch.device) -> None:
    """Wait until the device has done what it was asked for."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def problem(classes: int, shots: int, d: int, device: torch.device, seed: int = 0) -> FewShot:
    """Return photos around class centres, and texts that are somewhat wrong."""
    generator = torch.Generator().manual_seed(seed)

    def unit(*shape: int) -> torch.Tensor:
        return F.normalize(torch.randn(*shape, generator=generator), dim=-1)

    centres = unit(classes, d)
    y = torch.arange(classes).repeat_interleave(shots)
    x = F.normalize(centres[y] + 0.8 * unit(len(y), d), dim=-1)
    w = F.normalize(centres + unit(classes, d), dim=-1)
    prompts = F.normalize(w[:, None] + 0.5 * unit(classes, 8, d), dim=-1)
    val_y = torch.arange(classes).repeat_interleave(min(4, shots))
    val_x = F.normalize(centres[val_y] + 0.8 * unit(len(val_y), d), dim=-1)
    put = [t.to(device) for t in (x, y, w, prompts, val_x, val_y)]
    x, y, w, prompts, val_x, val_y = put
    described = F.normalize(prompts.mean(1), dim=-1)
    where = torch.arange(classes, device=device)
    mask = torch.ones(classes, 8, dtype=torch.bool, device=device)
    names = tuple(map(str, range(classes)))
    texts = ClassSet(w, w, described, None, where, names)
    return FewShot(x, y, None, texts, prompts, mask, val_x, val_y, 100.0, shots)


def training(device: torch.device, small: bool, rounds: int) -> dict[str, float]:
    """Time ImageNet's size and all eleven data sets, three seeds each."""
    d, shots = (64, 2) if small else (512, 16)
    sizes = [max(4, n // (50 if small else 2)) for n in ELEVEN[: 2 if small else None]]  # base
    found = {}
    for name in ("default", "staged"):
        recipe = load_recipe(name)
        if small:
            recipe = recipe.model_copy(update={"epochs": 1})
        largest = problem(2 * sizes[0], shots, d, device)
        found[f"ImageNet-size, {name}, seconds"] = timed(
            lambda recipe=recipe, data=largest: fit(data, recipe, Seeds(1, 1)), device, rounds
        )
        if name == "default":
            sets = [problem(n, shots, d, device, seed=n) for n in sizes]
            found[f"{len(sizes)} data sets, three seeds, seconds"] = timed(
                lambda recipe=recipe, sets=sets: [
                    fit(data, recipe, Seeds(seed, seed)) for data in sets for seed in (1, 2, 3)
                ],
                device,
                1,
            )
    return found


def encoding(device: torch.device, small: bool, rounds: int) -> dict[str, float]:
    """Time the image and text tower of ViT-B/16 with random weights in batches."""
    import logging

    import open_clip

    logging.disable(logging.WARNING)
    name = "ViT-S-32-alt" if small else "ViT-B-16-quickgelu"
    model: Any = open_clip.create_model(name).eval().to(device)
    tokens = open_clip.get_tokenizer(name)(
        ["a photo of a small brown dog."] * (8 if small else 512)
    )
    found: dict[str, float] = {}
    types = [torch.float32, *([torch.bfloat16] if device.type == "cuda" else [])]
    pixels = torch.randn(2 if small else 256, 3, 224, 224, device=device)
    for kind in types:
        with torch.inference_mode(), torch.autocast(device.type, kind, kind != torch.float32):
            label = str(kind).removeprefix("torch.")
            seconds = timed(lambda: model.encode_image(pixels), device, rounds)
            found[f"{name}, {label}, images a second"] = len(pixels) / seconds
            seconds = timed(lambda: model.encode_text(tokens.to(device)), device, rounds)
            found[f"{name}, {label}, texts a second"] = len(tokens) / seconds
    return found


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, help="JSON file")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--small", action="store_true", help="sizes that a CPU can do")
    parser.add_argument("--rounds", type=int, default=3)
    words = parser.parse_args()
    device = pick_device(words.device)
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
    report: dict[str, Any] = {
        "device": gpu or f"{device.type}, {torch.get_num_threads()} threads",
        "machine": platform.platform(), "aape": __version__, "torch": torch.__version__,
        "small": words.small, "rounds": words.rounds,
    }  # fmt: skip
    for part in (training, encoding):
        report[part.__name__] = part(device, words.small, words.rounds)
        words.out.write_text(json.dumps(report, indent=1), encoding="utf-8")
        print(json.dumps(report[part.__name__], indent=1), flush=True)


if __name__ == "__main__":
    main()
