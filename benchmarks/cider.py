"""CIDEr-D, BLEU and ROUGE-L against pycocoevalcap: the same scores, the time of each.

python benchmarks/cider.py --images 5000 --captions-file annotations/captions_val2017.json
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from aape.adapter.metrics.ngrams import bleu, cider_d, rouge_l
from aape.adapter.metrics.tokenize import tokenize_captions


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--references", type=int, default=5)
    parser.add_argument("--captions-file", type=Path, nargs="+", required=True)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    from pycocoevalcap.bleu.bleu_scorer import BleuScorer
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge

    # real captions, drawn with repetition, a word replaced in half of them so that most differ
    lines = [
        row["caption"]
        for path in arguments.captions_file
        for row in json.loads(path.read_text())["annotations"]
    ]
    rng = random.Random(0)
    words = sorted({word for line in lines for word in line.split()})

    def draw() -> str:
        line = rng.choice(lines).split()
        if line and rng.random() < 0.5:
            line[rng.randrange(len(line))] = rng.choice(words)
        return " ".join(line)

    raw = [[draw() for _ in range(arguments.references + 1)] for _ in range(arguments.images)]
    start = time.perf_counter()
    groups = [tokenize_captions(group) for group in raw]
    tokenised = time.perf_counter() - start
    candidates, references = [group[0] for group in groups], [group[1:] for group in groups]
    truth = {i: [" ".join(line) for line in group] for i, group in enumerate(references)}
    output = {i: [" ".join(line)] for i, line in enumerate(candidates)}

    both = (truth, output)

    def reference_bleu() -> tuple[None, np.ndarray]:
        scorer = BleuScorer(n=4)
        for i in truth:
            scorer += (output[i][0], truth[i])
        return None, np.array(scorer.compute_score(option="closest")[0])

    rows = {}
    contenders: list[tuple[str, Callable[[], np.ndarray], Callable[[], Any]]] = [
        ("CIDEr-D", lambda: cider_d(candidates, references), lambda: Cider().compute_score(*both)),
        ("BLEU", lambda: np.array(bleu(candidates, references)), reference_bleu),
        ("ROUGE-L", lambda: rouge_l(candidates, references), lambda: Rouge().compute_score(*both)),
    ]
    for name, ours, theirs in contenders:
        start = time.perf_counter()
        mine = ours()
        middle = time.perf_counter()
        other = theirs()[1]
        end = time.perf_counter()
        rows[name] = {
            "ours_s": round(middle - start, 3),
            "pycocoevalcap_s": round(end - middle, 3),
            "ratio": round((end - middle) / (middle - start), 1),
            "largest_difference": float(np.abs(mine - np.asarray(other)).max()),
        }
    result = {
        "images": arguments.images,
        "references": arguments.references,
        "our_tokenizer_s": round(tokenised, 3),
        **rows,
    }
    print(json.dumps(result, indent=2))
    if arguments.out:
        arguments.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
