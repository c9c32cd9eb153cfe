"""All that a GPU should make fast, in one command that writes one JSON to send back.

    python benchmarks/gpu.py gpu.json            # or: make bench-gpu
    python benchmarks/gpu.py cpu.json --small    # the same code at sizes that a CPU can do

Synthetic features and random weights: what is measured is time. Every figure is the median of
several rounds after one that does not count, and the device is waited for on both sides.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import save_file
from training import imagenet_16_shots

from aape import __version__
from aape.adapter.method.descent import Descent
from aape.adapter.method.problem import ClassSet, FewShot
from aape.adapter.method.recipe import load_recipe
from aape.adapter.method.seeds import Seeds
from aape.adapter.method.train import fit
from aape.pipeline.embed.image_cache import PLAIN
from aape.pipeline.embed.images import image_features
from aape.pipeline.embed.pixels import Job, pixel_batches
from aape.pipeline.embed.texts import encode_texts
from aape.pipeline.encoders import load_encoder
from aape.pipeline.encoders.base import pick_device
from aape.pipeline.pictures import read_picture

# classes of the eleven data sets of the paper; base classes are the first half
ELEVEN = (1000, 100, 37, 196, 102, 101, 100, 397, 47, 10, 101)


def timed(work: Callable[[], Any], device: torch.device, rounds: int) -> float:
    """Return the median seconds of a round after one that does not count; of that one for 0."""
    seconds = []
    for number in range(rounds + 1):
        wait(device)
        start = time.perf_counter()
        work()
        wait(device)
        if number or not rounds:
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
    described = F.normalize(prompts.mean(1), dim=-1)
    mask = torch.ones(classes, 8, dtype=torch.bool)
    names = tuple(map(str, range(classes)))
    texts = ClassSet(w, w, described, None, torch.arange(classes), names)
    data = FewShot(x, y, None, texts, prompts, mask, val_x, val_y, 100.0, shots)
    return data.to(device)


def training(
    device: torch.device, small: bool, rounds: int, imagenet: Path | None = None
) -> dict[str, float]:
    """Time ImageNet's size and all eleven data sets, three seeds each.

    Made-up classes are told apart easily, so a convex problem of them ends soon; ``imagenet`` is a
    file of real features to train on beside them.
    """
    d, shots = (64, 2) if small else (512, 16)
    sizes = [max(4, n // (50 if small else 2)) for n in ELEVEN[: 2 if small else None]]  # base
    found = {}
    largest = problem(2 * sizes[0], shots, d, device)
    for name in ("default", "staged"):
        recipe = load_recipe(name)
        if small:
            recipe = recipe.model_copy(update={"epochs": 1})
        found[f"ImageNet-size, {name}, seconds"] = timed(
            lambda recipe=recipe: fit(largest, recipe, Seeds(1, 1)), device, rounds
        )
        if imagenet is not None:
            real = imagenet_16_shots(imagenet).to(device)
            found[f"16,000 real features, 1,000 classes, {name}, seconds"] = timed(
                lambda recipe=recipe, real=real: fit(real, recipe, Seeds(1, 1)), device, rounds
            )
        sets = [problem(n, shots, d, device, seed=n) for n in sizes]
        found[f"{len(sizes)} data sets, three seeds, {name}, seconds"] = timed(
            lambda recipe=recipe, sets=sets: [
                fit(data, recipe, Seeds(seed, seed)) for data in sets for seed in (1, 2, 3)
            ],
            device,
            0,
        )
    return found


def steps(device: torch.device, small: bool, rounds: int) -> dict[str, float]:
    """Time one epoch of the paper's recipe, recorded and not, and compare their losses.

    As many classes as an average data set of the paper has for training, and 16 shots.
    """
    data = problem(8 if small else 100, 2 if small else 16, 64 if small else 512, device)
    found = {}
    last: dict[bool, list[float]] = {}
    for name in ("literal", "staged"):
        recipe = load_recipe(name)
        for record in (False, True):
            descent = Descent(data, recipe, Seeds(1, 1), record=record)
            descent.run_epoch()  # libraries open, the step is recorded
            seconds = timed(descent.run_epoch, device, rounds) / descent.steps
            label = "recorded" if record else "asked for anew"
            found[f"{name}, a step {label}, milliseconds"] = 1e3 * seconds
            last[record] = list(descent.history[-1].values())
        apart = max(abs(a - b) / max(abs(a), 1e-9) for a, b in zip(*last.values()))
        found[f"{name}, losses apart after {rounds + 2} epochs"] = apart
    return found


def agreement(device: torch.device, small: bool, rounds: int) -> dict[str, float]:
    """Train the same on the CPU and on the device, and say how far answers lie apart."""
    found = {}
    for name in ("default", "staged"):
        recipe = load_recipe(name)
        answers = []
        for where in (torch.device("cpu"), device):
            data = problem(8 if small else 100, 4, 64 if small else 512, where)
            x = problem(8 if small else 100, 8, 64 if small else 512, where, seed=5).x
            answers.append(fit(data, recipe, Seeds(1, 1)).logits(x, data.classes).softmax(1).cpu())
        there, here = answers
        found[f"{name}, largest difference of a probability"] = float((there - here).abs().max())
        same = (there.argmax(1) == here.argmax(1)).double().mean()
        found[f"{name}, share of answers that are the same"] = float(same)
    return found


def encoding(device: torch.device, small: bool, rounds: int) -> dict[str, float]:
    """Time ViT-B/16 and ViT-L/14 with random weights: the towers alone, and from files to cache."""
    logging.disable(logging.WARNING)
    found: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as name:
        photos = write_photos(Path(name), 6 if small else 4096)
        names = ("ViT-S-32-alt",) if small else ("ViT-B-16-quickgelu", "ViT-L-14-336-quickgelu")
        for model in names:
            found |= one_encoder(model, photos, Path(name), device, small, rounds)
    return found


def write_photos(folder: Path, count: int) -> list[Path]:
    """Write JPEG files of 500 x 375 pixels, each another one."""
    rng = np.random.default_rng(0)

    def write(number: int, noise: np.ndarray) -> Path:
        path = folder / f"{number}.jpg"
        Image.fromarray(noise).resize((500, 375)).save(path, quality=90)
        return path

    noises = [rng.integers(0, 255, (30, 40, 3), dtype=np.uint8) for _ in range(count)]
    with ThreadPoolExecutor() as pool:
        return list(pool.map(write, range(count), noises))


def one_encoder(
    model: str, photos: list[Path], folder: Path, device: torch.device, small: bool, rounds: int
) -> dict[str, float]:
    """Time one encoder in its own precision."""
    checkpoint = folder / f"{model}.safetensors"
    random: Any = open_clip.create_model(model)
    save_file(random.state_dict(), checkpoint)
    encoder: Any = load_encoder(model, str(checkpoint), str(device))
    found: dict[str, float] = {}

    def rate(what: str, count: int, work: Callable[[], Any]) -> None:
        found[f"{model}, {encoder.precision}, {what} a second"] = count / timed(
            work, device, rounds
        )

    pixels = torch.stack([encoder.transform(read_picture(path).image) for path in photos[:6]])
    pixels = pixels.repeat(1 if small else 43, 1, 1, 1)[:256].to(device)
    rate("images of the tower alone", len(pixels), lambda: encoder.encode_images(pixels))
    jobs = [Job(path, path.name, [PLAIN]) for path in photos]

    def read() -> None:
        for _ in pixel_batches(encoder, jobs, 0, None, 256):
            pass

    def from_files() -> None:
        os.environ["AAPE_HOME"] = tempfile.mkdtemp(dir=folder)
        again()

    def again() -> None:
        image_features(encoder, photos, batch_size=256)

    rate("images read alone", len(photos), read)
    rate("images from files to cache", len(photos), from_files)
    rate("images found again in the cache", len(photos), again)
    texts = [f"a photo of a {n} bird that has {n % 97} wings" for n in range(8 if small else 8192)]
    tokens = encoder._tokenizer(texts[:256]).to(device)
    rate("texts made tokens, alone,", len(texts), lambda: encoder._tokenizer(texts))

    def tower() -> None:
        with torch.inference_mode(), encoder.fast():
            encoder._model.encode_text(tokens)

    rate("texts of the tower alone, 77 tokens", len(tokens), tower)
    for size in (256, 1024):
        rate(
            f"texts from strings, batches of {size}",
            len(texts),
            lambda size=size: encode_texts(encoder, texts, batch_size=size, cache=False),
        )
    return found


PARTS: dict[str, Callable[..., dict[str, float]]] = {
    part.__name__: part for part in (steps, agreement, encoding, training)
}


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, help="JSON file")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--small", action="store_true", help="sizes that a CPU can do")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--imagenet", type=Path, help="features file with 4 shots of ImageNet")
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    words = parser.parse_args()
    device = pick_device(words.device)
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
    report: dict[str, Any] = {
        "device": gpu or f"{device.type}, {torch.get_num_threads()} threads",
        "machine": platform.platform(), "aape": __version__, "torch": torch.__version__,
        "small": words.small, "rounds": words.rounds, "processors": os.cpu_count(),
    }  # fmt: skip
    for name in words.parts:
        more = {"imagenet": words.imagenet} if name == "training" else {}
        report[name] = PARTS[name](device, words.small, words.rounds, **more)
        words.out.write_text(json.dumps(report, indent=1), encoding="utf-8")
        print(json.dumps(report[name], indent=1), flush=True)


if __name__ == "__main__":
    main()
