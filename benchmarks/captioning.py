"""Texts a second: our decoding against transformers' own batched ``generate``, padded on the left.

Same model, same contexts of mixed length, same batch size, greedy, the same number of new tokens at
most. Ours differs in what it leaves out: batches hold contexts of like length, texts that ended
leave the batch, and only the last position is multiplied with the vocabulary at the start. A loop
of ``generate``, one text at a time, is timed too, since that is what scripts often do.

    python benchmarks/captioning.py --texts 64
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from aape.adapter.captions.decode import generate
from aape.adapter.captions.lm import FrozenLM
from aape.adapter.captions.settings import DecodeConfig


def by_transformers(lm: FrozenLM, contexts: Sequence[Tensor], config: DecodeConfig) -> list[str]:
    """Continue contexts in the order given, in batches padded on the left."""
    stops = sorted(lm.stops)
    texts = []
    for first in range(0, len(contexts), config.batch_size):
        batch = [torch.cat([lm.start, one]) for one in contexts[first : first + config.batch_size]]
        longest = max(map(len, batch))
        embeds = torch.zeros(len(batch), longest, lm.width, dtype=lm.embedding.dtype)
        mask = torch.zeros(len(batch), longest, dtype=torch.long)
        for row, one in enumerate(batch):
            embeds[row, longest - len(one) :] = one
            mask[row, longest - len(one) :] = 1
        found = lm.model.generate(
            inputs_embeds=embeds.to(lm.device),
            attention_mask=mask.to(lm.device),
            max_new_tokens=config.max_tokens,
            do_sample=False,
            eos_token_id=stops,
            pad_token_id=stops[0],
        ).tolist()
        for ids in found:
            end = next((i for i, token in enumerate(ids) if token in lm.stops), len(ids))
            texts.append(" ".join(lm.tokenizer.decode(ids[:end], skip_special_tokens=True).split()))
    return texts


def timed(work: Callable[[], list[str]]) -> tuple[float, list[str]]:
    """Return seconds and texts."""
    start = time.perf_counter()
    texts = work()
    return time.perf_counter() - start, texts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--texts", type=int, default=64)
    parser.add_argument("--max-tokens", type=int, default=16)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=3, help="the median is reported")
    parser.add_argument("--language-model", default="smollm2")
    parser.add_argument("--loop", action="store_true", help="also one text at a time")
    arguments = parser.parse_args()
    lm = FrozenLM.load(arguments.language_model)
    generator = torch.Generator().manual_seed(0)
    contexts = [
        torch.cat(
            [
                (torch.randn(5, lm.width, generator=generator) * lm.scale).to(lm.embedding.dtype),
                lm.embed(lm.ids(" Q: what is in the image?" * (1 + i % 3) + " A:")),
            ]
        )
        for i in range(arguments.texts)
    ]
    config = DecodeConfig(max_tokens=arguments.max_tokens, batch_size=arguments.batch_size)
    single = config.model_copy(update={"batch_size": 1})
    rivals: dict[str, Callable[[], list[str]]] = {
        "ours": lambda: [text for text, _ in generate(lm, contexts, config)],
        "batched_generate": lambda: by_transformers(lm, contexts, config),
    }
    if arguments.loop:
        rivals["loop_of_generate"] = lambda: by_transformers(lm, contexts, single)
    # a warm-up of all, so that none pays for the first touch of the weights
    generate(lm, contexts[:2], config)
    by_transformers(lm, contexts[:2], config)
    # in turn, so that a busy spell of the machine falls on all
    rounds = [
        {name: timed(work) for name, work in rivals.items()} for _ in range(arguments.repeats)
    ]
    seconds = {name: statistics.median(each[name][0] for each in rounds) for name in rivals}
    ours = rounds[0]["ours"][1]
    print(
        json.dumps(
            {
                "texts": len(contexts),
                "threads": torch.get_num_threads(),
                "texts_per_s": {n: round(len(contexts) / s, 2) for n, s in seconds.items()},
                "ratio": {n: round(s / seconds["ours"], 2) for n, s in seconds.items()},
                "equal_texts": {
                    n: sum(a == b for a, b in zip(ours, rounds[0][n][1])) for n in rivals
                },
            },
            indent=2,
        )
    )


if __name__ == "__main__":
    main()
