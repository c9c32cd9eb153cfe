"""Texts and images through ``aape`` against a bare open_clip loop, in one run.

    python benchmarks/encoding.py [--model ViT-B-32-quickgelu] [--texts 512] [--images 128]
        [--size 640x480] [--what lite texts images] [--rounds 3] [--json]

The model has RANDOM weights: this measures speed only. Both sides run the same precision, on the
same texts and files; each round runs both, and the median of the ratios is reported. A bare loop
reads images on one core and encodes on all. ``possible`` is its time over what is left when all
cores read too: the most that can be gained where the encoder runs on the same cores.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from PIL import Image
from safetensors.torch import save_file

from aape.pipeline.embed.images import image_features
from aape.pipeline.embed.texts import encode_texts
from aape.pipeline.encoders import load_encoder
from aape.pipeline.encoders.base import batches
from aape.pipeline.raster import open_raster

_ALL = ("lite", "texts", "images")


def compare(
    name: str, count: int, bare: Callable[[], Any], ours: Callable[[], Any], rounds: int
) -> dict[str, Any]:
    """Time both in turns; ratio above 1 means that ours is faster."""
    ratios, rates = [], []
    for _ in range(rounds):
        start = time.perf_counter()
        bare()
        middle = time.perf_counter()
        ours()
        end = time.perf_counter()
        ratios.append((middle - start) / (end - middle))
        rates.append((count / (middle - start), count / (end - middle)))
    best = rates[ratios.index(sorted(ratios)[len(ratios) // 2])]
    return {
        "what": name,
        "bare /s": round(best[0], 1),
        "aape /s": round(best[1], 1),
        "ratio": round(statistics.median(ratios), 2),
        "ratios": [round(ratio, 2) for ratio in ratios],
        "possible": "",
    }


def fresh_cache() -> None:
    """Point the cache at a new folder, so that nothing is reused."""
    os.environ["AAPE_HOME"] = tempfile.mkdtemp(prefix="aape-benchmark-")


def open_clip_rows(
    options: argparse.Namespace, folder: Path, files: list[Path]
) -> Iterator[dict[str, Any]]:
    """Compare with a bare loop over the same open_clip model."""
    checkpoint = folder / "random.safetensors"
    bare, _, transform = open_clip.create_model_and_transforms(options.model)
    save_file(bare.state_dict(), checkpoint)
    tokenizer = open_clip.get_tokenizer(options.model)
    encoder = load_encoder(options.model, str(checkpoint), options.device, "float32")
    model: Any = bare.eval().to(encoder.device)
    words = np.array(["a", "photo", "of", "the", "small", "red", "bird", "with", "long", "wings"])
    rng = np.random.default_rng(0)
    lengths = rng.integers(6, 30, options.texts)
    texts = [" ".join([*rng.choice(words, size), str(n)]) for n, size in enumerate(lengths)]

    @torch.inference_mode()
    def bare_texts() -> None:
        for part in batches(len(texts), 64):
            model.encode_text(tokenizer(texts[part]).to(encoder.device), normalize=True).cpu()

    @torch.inference_mode()
    def bare_images() -> None:
        for part in batches(len(files), 32):
            pixels = torch.stack([transform(open_raster(path)) for path in files[part]])  # type: ignore[operator]
            model.encode_image(pixels.to(encoder.device), normalize=True).cpu()

    def our_texts() -> None:
        fresh_cache()
        encode_texts(encoder, texts, batch_size=64)

    def our_images() -> None:
        fresh_cache()
        image_features(encoder, files, batch_size=32, workers=options.workers)

    encode_texts(encoder, texts[:8], cache=False)
    label = f"{options.model} (random weights)"
    if "texts" in options.what:
        yield compare(f"texts, {label}", len(texts), bare_texts, our_texts, options.rounds)
    if "images" in options.what:
        row = compare(f"images, {label}", len(files), bare_images, our_images, options.rounds)
        if encoder.device.type == "cpu":
            start = time.perf_counter()
            for path in files[:32]:
                transform(open_raster(path))  # type: ignore[operator]
            read = (time.perf_counter() - start) / len(files[:32])
            whole = 1 / row["bare /s"]
            row["possible"] = round(whole / (whole - read + read / torch.get_num_threads()), 2)
        yield row


def lite_row(rounds: int, count: int) -> dict[str, Any]:
    """Compare the image tower of ``lite`` with the same network as timm builds it."""
    import timm

    encoder = load_encoder("lite", device="cpu")
    model = timm.create_model("tf_efficientnet_lite0", pretrained=False).eval()
    pixels = torch.randn(count, 3, 224, 224)

    @torch.inference_mode()
    def bare() -> None:
        for part in batches(count, 32):
            model.forward_features(pixels[part])  # type: ignore[operator]

    def ours() -> None:
        for part in batches(count, 32):
            encoder.encode_images(pixels[part])

    ours()
    return compare(
        f"lite image tower ({getattr(encoder, 'precision', '')})", count, bare, ours, rounds
    )


def main() -> None:
    """Print the table as Markdown or JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="ViT-B-32-quickgelu")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--texts", type=int, default=512)
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--size", default="640x480", help="of the JPEG files")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--what", nargs="+", choices=_ALL, default=_ALL)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rng = np.random.default_rng(0)
        width, height = map(int, options.size.split("x"))
        size = (width, height)
        files = [folder / f"{number}.jpg" for number in range(options.images)]
        for path in files:
            noise = rng.integers(0, 255, (30, 40, 3), dtype=np.uint8)
            Image.fromarray(noise).resize(size).save(path, quality=90)
        if not options.json:
            threads, load = torch.get_num_threads(), os.getloadavg()[0]
            print(f"{os.cpu_count()} processors, {threads} threads, load {load:.1f} at the start,")
            print(f"torch {torch.__version__}\n")
            print("| what | bare /s | aape /s | ratio (median) | of each round | possible |")
            print("|---|---|---|---|---|---|")
        rows = []
        lite = [lite_row(options.rounds, 32)] if "lite" in options.what else []
        for row in chain(lite, open_clip_rows(options, folder, files)):
            rows.append(row)
            if not options.json:
                print("| " + " | ".join(map(str, row.values())) + " |", flush=True)
    if options.json:
        print(json.dumps(rows, indent=2))


if __name__ == "__main__":
    main()
