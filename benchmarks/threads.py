"""How much another number of threads, or another device, changes vectors and answers.

    python benchmarks/threads.py FEATURES PHOTOS [--on cpu:1,cpu:2,cuda] [--shots 4] [--page FILE]

Each place is a process of its own: it encodes photos and the names of the classes of FEATURES with
``lite``, trains ``default`` on FEATURES in the protocol ``base2new`` and predicts its test photos.
The first place is what the others are compared with; it runs twice, the second time as a check that
the same place gives the same bytes.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from marked_page import write_between

_PHOTOS = 64


def measure(features: Path, photos: Path, device: str, shots: int, out: Path) -> None:
    """Encode, train and predict here; write what came out."""
    import torch

    from aape.adapter.captions.listed_photos import listed_photos
    from aape.adapter.classification.feature_file import FileSource
    from aape.adapter.classification.protocols import load_protocol
    from aape.adapter.method.recipe import DEFAULT
    from aape.adapter.method.train import fit
    from aape.pipeline.encoders import load_encoder
    from aape.pipeline.pictures import read_picture

    draw = FileSource(features).draw(shots, 0)
    protocol = load_protocol("base2new")
    fitted = fit(draw.few_shot(protocol.trained_ids(draw), device), DEFAULT, 0)
    found = {}
    for test in protocol.test_sets(draw, device=device):
        logits = fitted.logits(torch.from_numpy(test.images.x).to(device), test.classes)
        found[f"shares {test.name}"] = logits.softmax(-1).cpu().numpy()
    encoder = load_encoder("lite", device=device)
    pixels = [
        encoder.transform(read_picture(path).image) for path in listed_photos([photos])[:_PHOTOS]
    ]
    found["photos"] = encoder.encode_images(torch.stack(pixels))
    found["texts"] = encoder.encode_text([f"a photo of a {name}" for name in draw.texts.names])
    np.savez(out, **found)


def elsewhere(place: str, words: argparse.Namespace, out: Path) -> dict[str, np.ndarray]:
    """Measure in a process of its own, on ``cpu:THREADS`` or a device."""
    device, _, threads = place.partition(":")
    command = [sys.executable, __file__, words.features, words.photos, "--shots", words.shots,
               "--here", device, "--out", out]  # fmt: skip
    env = os.environ | ({"OMP_NUM_THREADS": threads} if threads else {})
    subprocess.run([str(word) for word in command], env=env, check=True)
    with np.load(out) as kept:
        return dict(kept)


def compared(first: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> list[str]:
    """Return cells: the largest difference of each kind, and how many answers differ."""
    gaps = [
        max(float(np.abs(first[key] - other[key]).max()) for key in first if key.startswith(kind))
        for kind in ("photos", "texts", "shares")
    ]
    sets = [key for key in first if key.startswith("shares")]
    differ = sum(int((first[key].argmax(1) != other[key].argmax(1)).sum()) for key in sets)
    answers = sum(len(first[key]) for key in sets)
    return [*(f"{gap:.1e}" if gap else "0" for gap in gaps), f"{differ} of {answers:,}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("features", type=Path)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--on", default="cpu:1,cpu:2", help="places, the first to compare with")
    parser.add_argument("--shots", type=int, default=4)
    parser.add_argument("--page", type=Path, help="where the table goes")
    parser.add_argument("--here", default="", help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    words = parser.parse_args()
    if words.here:
        measure(words.features, words.photos, words.here, words.shots, words.out)
        return
    places = words.on.split(",")
    lines = [
        "",
        f"| {places[0]} and | photo vectors | text vectors | shares of classes | other answers |",
        "|---|---|---|---|---|",
    ]
    with tempfile.TemporaryDirectory() as folder:
        first = elsewhere(places[0], words, Path(folder, "first.npz"))
        for number, place in enumerate(places):
            other = elsewhere(place, words, Path(folder, f"{number}.npz"))
            name = "itself again" if not number else place
            lines.append(f"| {name} | {' | '.join(compared(first, other))} |")
            print(lines[-1], flush=True)
    if words.page:
        write_between(words.page, "threads", [*lines, ""])


if __name__ == "__main__":
    main()
