"""A tiny captioned data set with questions, an encoder and a language model for unit tests."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import LlamaConfig, LlamaForCausalLM

from aape.adapter.captions.lm import FrozenLM
from aape.pipeline.datasets import CaptionedImage, Question

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 60), "blue": (40, 60, 230), "gray": (120,) * 3}


class _Manifest:
    name = "fake"


class _Layout:
    kind = "fake"


class FakeDataset:
    """Pictures of one colour; captions and questions name it."""

    manifest: Any = _Manifest()
    layout: Any = _Layout()
    contents: Any = SimpleNamespace(remarks=(), captions={"train": True})

    def __init__(self, folder: Path, images: int = 48) -> None:
        rng = np.random.default_rng(0)
        self.rows: list[tuple[str, Path]] = []
        (folder / "pictures").mkdir(exist_ok=True)
        for number in range(images):
            name = list(COLOURS)[number % len(COLOURS)]
            values = np.array(COLOURS[name]) + rng.integers(-20, 20, (8, 8, 3))
            path = folder / "pictures" / f"{number}.png"
            Image.fromarray(values.clip(0, 255).astype(np.uint8)).save(path)
            self.rows.append((name, path))

    def _split(self, split: str) -> list[tuple[int, str, Path]]:
        third = {"train": 0, "val": 1, "test": 2}[split]
        rows = [(i, name, path) for i, (name, path) in enumerate(self.rows)]
        return [row for row in rows if row[0] // 4 % 3 == third]

    def captions(self, split: str) -> list[CaptionedImage]:
        return [
            CaptionedImage(str(i), path, (f"a {name} field", f"all is {name}")[: 1 + i % 2])
            for i, name, path in self._split(split)
        ]

    def questions(self, split: str) -> list[Question]:
        return [
            Question(f"{i}/q", str(i), path, "what color is it?", (name,), "what color is", "color")
            for i, name, path in self._split(split)
        ]


class FakeTokenizer:
    """A word a token; no pad token, no special tokens in texts."""

    words = tuple(
        "<newline> <end> <unknown> red green blue gray a field all is Q : what color it ? A b c"
        .replace("<newline>", "\n").split(" ")
    )  # fmt: skip
    pad_token_id = None
    eos_token_id = 1

    def __call__(self, text: str, add_special_tokens: bool = False) -> dict[str, list[int]]:
        pieces = re.findall(r"\n|\w+|[^\w\s]", text)
        return {"input_ids": [self.words.index(p) if p in self.words else 2 for p in pieces]}

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = True) -> str:
        return " ".join(" ".join(self.words[i] for i in ids if i != self.eos_token_id).split())


def tiny_lm(context: int = 64, texts: Sequence[str] = ()) -> FrozenLM:
    """A Llama of two layers that knows ``texts``, each of one word of image and its continuation.

    As a real language model would, it says of a picture's word what the texts say of it.
    """
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(FakeTokenizer.words), hidden_size=32, intermediate_size=64,
        num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        max_position_embeddings=context, eos_token_id=1, bos_token_id=None,
        initializer_range=0.3, tie_word_embeddings=True,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    tokenizer = FakeTokenizer()
    for _ in range(60 if texts else 0):
        for text in texts:
            ids = torch.tensor([tokenizer(text)["input_ids"]])
            model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return FrozenLM(model.eval().requires_grad_(False), tokenizer, "tiny")


@cache
def speaking_lm(context: int = 64) -> FrozenLM:
    """A tiny model that knows captions and answers of the four colours."""
    texts = [f"{c} a {c} field\n" for c in COLOURS] + [f"{c} all is {c}\n" for c in COLOURS]
    texts += [f"{c} Q: what color is it? A: {c}\n" for c in COLOURS]
    return tiny_lm(context, texts)
