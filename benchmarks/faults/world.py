"""The small world that commands are disturbed in: photos, texts, an encoder and a server.

Everything is made of a seed, so that an undisturbed run ends in the same bytes every time. The
encoder and the server stand for what is slow and not ours; all else is the real program.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Callable, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.numpy import save_file

from aape.pipeline.encoders.photo_transforms import Augmentation, Evaluation

COLOURS = {
    "red kite": (220, 30, 30),
    "blue jay": (30, 40, 230),
    "green finch": (30, 200, 60),
    "grey owl": (120, 120, 120),
}
_PHOTOS = 8  # a class
_DIM = 8
_GREY = (0.5, 0.5, 0.5)
_TAILS = ("on a branch", "in the snow", "over the sea", "near a lake", "at dawn", "in tall grass")


class CheapEncoder:
    """Texts as random unit vectors that follow from the text, photos as a map of their pixels."""

    id, weights_hash, precision, notes = "cheap", "0" * 64, "fp32", ""
    dim, token_dim, logit_scale, logit_bias, context_length = _DIM, 3, 10.0, 0.0, 77
    preprocessing = "v1"
    device = torch.device("cpu")

    def __init__(self) -> None:
        self.transform = Evaluation(8, 8, _GREY, _GREY)
        self.augment = Augmentation(8, _GREY, _GREY)
        self.map = torch.randn(192, _DIM, generator=torch.Generator().manual_seed(0))

    @property
    def fingerprint(self) -> str:
        """As of any encoder."""
        return f"{self.id}@{self.weights_hash[:16]}"

    def encode_text(self, texts: Sequence[str]) -> np.ndarray:
        """(n,) texts to (n, 8), unit length."""
        rows = []
        for text in texts:
            digest = hashlib.sha256(text.encode("utf-8", "replace")).digest()
            rows.append(np.random.default_rng(list(digest[:8])).normal(size=_DIM))
        table = np.array(rows, np.float32).reshape(len(rows), _DIM)
        return table / np.linalg.norm(table, axis=1, keepdims=True)

    def encode_images(self, pixels: torch.Tensor) -> torch.Tensor:
        """(b, 3, 8, 8) to (b, 8), unit length."""
        return F.normalize(pixels.flatten(1) @ self.map, dim=-1)

    def image_tokens(self, pixels: torch.Tensor) -> torch.Tensor:
        """(b, 3, 8, 8) to (b, 4, 3)."""
        return pixels[:, :, ::4, ::4].flatten(2).transpose(1, 2)

    def encode_images_and_tokens(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Both of the above."""
        return self.encode_images(pixels), self.image_tokens(pixels)

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Words, start and end."""
        return [len(text.split()) + 2 for text in texts]

    def prompt_tower(self) -> None:
        """There is none: no learned contexts."""


def install() -> None:
    """Put the cheap encoder in place of every other, and shorten the pauses between tries."""
    from aape.pipeline import encoders
    from aape.pipeline.prompts.engines import openai

    original = encoders.load_encoder

    def load(*words: Any, **options: Any) -> CheapEncoder:
        return CheapEncoder()

    for module in list(sys.modules.values()):
        if vars(module).get("load_encoder") is original:  # no attribute that is made when asked
            module.load_encoder = load  # type: ignore[attr-defined]
    openai._FIRST_PAUSE = 0.001


def build(folder: Path) -> None:
    """Write photos, captions, published texts, a data set's manifest and feature files."""
    _photos(folder / "photos", 0)
    known = folder / "home" / "datasets"
    known.mkdir(parents=True)
    (known / "toy.yaml").write_text(_MANIFEST, encoding="utf-8")
    (known / "told.yaml").write_text(_TOLD, encoding="utf-8")
    texts = {name: [f"The {name} is seen {tail}." for tail in _TAILS] for name in COLOURS}
    (folder / "published.json").write_text(json.dumps(texts), encoding="utf-8")
    _captions(folder)
    for number in (1, 2):
        _features(folder / f"features-{number}.safetensors", number, list(COLOURS))
    _features(folder / "features-new.safetensors", 3, ["black kite", "white stork"])


def _photos(folder: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    for name, colour in COLOURS.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number in range(_PHOTOS):
            pixels = np.array(colour) + rng.integers(-40, 40, (8, 8, 3))
            picture = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
            picture.save(folder / name / f"{number}.png")


_MANIFEST = """\
name: toy
title: Toy
tasks: [classification]
category: bird
classes: [{names}]
templates: ['a photo of a {{}}.']
queries: [{{id: look, text: 'What does {{article}} {{class}} look like?'}}]
layouts: [{{kind: image_folders, flat: .}}]
installed: [photos]
licence: none
""".format(names=", ".join(f"{{name: {name}, folder: {name}}}" for name in sorted(COLOURS)))


_TOLD = """\
name: told
title: Told
tasks: [retrieval, captioning]
layouts: [{kind: karpathy, file: dataset.json, images: ["{folder}/{name}"]}]
installed: [photos]
licence: none
"""


def _captions(folder: Path) -> None:
    """Karpathy's form: half train, a quarter val, a quarter test."""
    images = []
    for name in COLOURS:
        for number in range(_PHOTOS):
            split = "train" if number < 4 else "val" if number < 6 else "test"
            said = [f"a {name} {_TAILS[number % 6]}", f"one {name} {_TAILS[(number + 1) % 6]}"]
            images.append(
                {
                    "filename": f"{number}.png",
                    "filepath": name,
                    "split": split,
                    "imgid": len(images),
                    "sentences": [{"raw": text} for text in said],
                }
            )
    (folder / "photos" / "dataset.json").write_text(json.dumps({"images": images}))


def _features(path: Path, seed: int, names: list[str]) -> None:
    """Features of a few classes in three splits, as ``aape train --features`` reads them."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(len(names), _DIM))
    arrays: dict[str, np.ndarray] = {}
    for split, count in (("train_4shot", 4), ("val", 3), ("test", 6)):
        labels = np.repeat(np.arange(len(names)), count)
        x = centres[labels] + 0.5 * rng.normal(size=(len(labels), _DIM))
        arrays[f"{split}.features"] = _unit(x)
        arrays[f"{split}.labels"] = labels
    arrays["class_text.features"] = _unit(centres + 0.3 * rng.normal(size=centres.shape))
    save_file(arrays, path, metadata={"classnames": json.dumps(names), "encoder": "cheap"})


def _unit(x: np.ndarray) -> np.ndarray:
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


# --- the server of answers ---


def honest(request: dict[str, Any]) -> str:
    """Return the body of an answer that follows from the request alone."""
    asked = json.dumps(request.get("messages")) + str(request.get("seed"))
    number = int.from_bytes(hashlib.sha256(asked.encode()).digest()[:4], "big")
    name = next((name for name in COLOURS if name in asked), "bird")
    text = f"The {name} is seen {_TAILS[number % len(_TAILS)]}, {number % 97} of them."
    choice = {
        "index": 0,
        "finish_reason": "stop",
        "message": {"role": "assistant", "content": text},
    }
    return json.dumps(
        {
            "id": "1", "object": "chat.completion", "created": 1, "model": "m",
            "choices": [choice], "usage": {"completion_tokens": 9, "prompt_tokens": 9},
        }
    )  # fmt: skip


def serve(port: int, lie: Callable[[Any, int, dict[str, Any]], bool] | None) -> tuple[int, int]:
    """Start a server on loopback, in a process of its own; returns process and port.

    It is honest, unless ``lie(handler, number, request)`` has answered by itself and says so.
    """
    count = iter(range(1 << 60))

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            length = int(self.headers.get("content-length", 0))
            request = json.loads(self.rfile.read(length))
            if lie is None or not lie(self, next(count), request):
                send(self, honest(request).encode())

        def log_message(self, *words: object) -> None:
            """Nothing on the terminal."""

    class Quiet(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *words: object) -> None:
            """A client that was killed is no news."""

    server = Quiet(("127.0.0.1", port), Handler)  # it queues clients from here on
    pid = os.fork()
    if pid == 0:
        try:
            server.serve_forever()
        finally:
            os._exit(0)
    server.socket.close()
    return pid, server.server_address[1]


def send(handler: BaseHTTPRequestHandler, body: bytes, status: int = 200, **headers: str) -> None:
    """Answer with a body of JSON, or whatever the headers say."""
    handler.send_response(status)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    for name, value in ({"content-type": "application/json"} | named).items():
        handler.send_header(name, value)
    handler.send_header("content-length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)
