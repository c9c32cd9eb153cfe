"""A run of classification made in a moment: a fake encoder, three terms, four classes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from fakes import PixelEncoder, unit
from PIL import Image

from aape.adapter.config import Config
from aape.adapter.method.adapter import FittedAdapter
from aape.adapter.method.recipe import Recipe
from aape.adapter.method.terms import OwnWeights, SharedMap, ZeroShot
from aape.adapter.run import RunFolder
from aape.pipeline.embed.texts import class_embeddings

NAMES = ["red kite", "<b>bold</b> owl", "猫", "green finch"]
TEMPLATE = "a photo of a {}."


def small_run(folder: Path, encoder: PixelEncoder, trained: int = 3) -> RunFolder:
    """Write a run whose first ``trained`` classes have terms of their own."""
    d = encoder.dim
    texts = torch.from_numpy(class_embeddings(encoder, NAMES, [TEMPLATE]))
    generator = torch.Generator().manual_seed(3)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    terms = [
        ZeroShot(10.0),
        OwnWeights(random(d, trained), random(trained)),
        SharedMap(random(d, d), random(d), unit(1, d, seed=5)[0]),
    ]
    table = {"zero-shot": (1.0, 1.0), "own weights": (0.5, 0.0), "shared map": (0.7, 0.9)}
    recipe = Recipe(kind="convex")
    fitted = FittedAdapter(recipe, texts[:trained], list(terms), table, 10.0)
    run = RunFolder(folder)
    run.start(Config())
    about = {
        "kind": "classification",
        "seed": 1,
        **fitted.config(),
        "dataset": "small",
        "encoder": encoder.fingerprint,
        "protocol": "fewshot-v1",
        "shots": 4,
        "class_names": NAMES[:trained],
        "all_class_names": NAMES,
        "template": TEMPLATE,
        "ensemble": [TEMPLATE],
    }
    run.save_weights(fitted.tensors(), about)
    return run


def random_photo(path: Path, seed: int = 0, size: tuple[int, int] = (24, 16)) -> Path:
    """Write a picture of noise, lossless."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.randint(0, 256, (size[1], size[0], 3), generator=generator, dtype=torch.uint8)
    Image.fromarray(values.numpy()).save(path, "PNG")
    return path


@dataclass(frozen=True)
class _Hit:
    path: Path
    cosine: float


class FakePhotos:
    """Stands for an opened search: the interface of the real one."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def text(self, sentence: str, k: int) -> list[_Hit]:
        return [_Hit(self.root / "deep" / f"{sentence}.png", 0.5)][:k]

    def like(self, photo: Path, k: int) -> list[_Hit]:
        assert photo.read_bytes()
        return [_Hit(self.root / "twin.png", 0.9)][:k]


@dataclass(frozen=True)
class _Said:
    path: Path
    text: str
    ended: bool = True
    error: str = ""


class FakeCaptioner:
    def texts(self, paths: list[Path]) -> Iterator[_Said]:
        for path in paths:
            side = Image.open(path).size[0]
            yield (
                _Said(path, f"{side} wide") if side < 50 else _Said(path, "", error=f"{path} bad")
            )
