"""Time of scoring as many questions as VQAv2's validation set has, ten answers each.

python benchmarks/vqa.py --questions 214354
"""

from __future__ import annotations

import argparse
import json
import random
import time

from aape.adapter.metrics.vqa import normalise_answer, vqa_scores

WORDS = (
    "yes", "no", "red", "blue", "two", "2", "the dog,", "a cat", "dont", "black/white", "t-shirt",
    "1,000", "left", "right", "woman's", "chair.", "10:30", "none", "one-way", "playing tennis",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--questions", type=int, default=214_354)
    arguments = parser.parse_args()
    rng = random.Random(0)

    def draw() -> str:
        return " ".join(rng.choices(WORDS, k=rng.randint(1, 3)))

    pool = [draw() for _ in range(30_000)]
    answers = []
    for _ in range(arguments.questions):
        few = rng.sample(pool, rng.randint(1, 4))
        answers.append([rng.choice(few) for _ in range(10)])
    predictions = [rng.choice(group) for group in answers]
    normalise_answer.cache_clear()
    start = time.perf_counter()
    scores = vqa_scores(predictions, answers)
    seconds = time.perf_counter() - start
    print(
        json.dumps(
            {
                "questions": len(scores),
                "distinct answers": len(pool),
                "seconds": round(seconds, 2),
                "accuracy": round(100 * float(scores.mean()), 2),
            },
            indent=2,
        )
    )


if __name__ == "__main__":
    main()
