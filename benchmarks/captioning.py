"""Texts a second: batched, length-sorted decoding against a loop of transformers' ``generate``.

Same model, same contexts of mixed length, greedy, the same number of new tokens at most.

    python benchmarks/captioning.py --texts 64
"""

from __future__ import annotations

import argparse
import json
import time

import torch

from aape.adapter.captions.decode import DecodeConfig, generate
from aape.adapter.captions.lm import FrozenLM


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--texts", type=int, default=64)
    parser.add_argument("--max-tokens", type=int, default=16)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--language-model", default="smollm2")
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
    stops = sorted(lm.stops)
    # a warm-up of both, so that neither pays for the first touch of the weights
    generate(lm, contexts[:2], config)
    start = time.perf_counter()
    ours = generate(lm, contexts, config)
    batched = time.perf_counter() - start
    start = time.perf_counter()
    theirs = []
    for context in contexts:
        embeds = torch.cat([lm.start, context])[None]
        ids = lm.model.generate(
            inputs_embeds=embeds,
            attention_mask=torch.ones(embeds.shape[:2], dtype=torch.long),
            max_new_tokens=arguments.max_tokens,
            do_sample=False,
            eos_token_id=stops,
            pad_token_id=stops[0],
        )[0].tolist()
        text = lm.tokenizer.decode([t for t in ids if t not in lm.stops], skip_special_tokens=True)
        theirs.append(" ".join(text.split()))
    loop = time.perf_counter() - start
    same = sum(text == other for (text, _), other in zip(ours, theirs))
    print(
        json.dumps(
            {
                "texts": len(contexts),
                "threads": torch.get_num_threads(),
                "ours_texts_per_s": round(len(contexts) / batched, 2),
                "loop_texts_per_s": round(len(contexts) / loop, 2),
                "ratio": round(loop / batched, 2),
                "equal_texts": same,
            },
            indent=2,
        )
    )


if __name__ == "__main__":
    main()
