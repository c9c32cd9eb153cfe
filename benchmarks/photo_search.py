"""The first and the second search of a folder of many photos, which are cropped from a few.

    python benchmarks/photo_search.py FOLDER WORK [--photos 10000] [--encoder lite]

Makes ``WORK/photos`` once, every crop of another content. Each search is a command of its own, as
a user has it: wall-clock seconds, and of them the processor's. The last one runs after a hundred
new photos.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import resource
import subprocess
import sys
import time
from pathlib import Path

from aape.pipeline.pictures import to_rgb
from aape.pipeline.raster import open_raster

SENTENCE = "something red with wings"
_A_FOLDER = 1000


def main() -> None:
    """Make the crops, search them, print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--photos", type=int, default=10_000)
    parser.add_argument("--encoder", default="lite")
    asked = parser.parse_args()
    photos = asked.work / "photos"
    crop_all(asked.folder, photos, asked.photos)
    os.environ["AAPE_HOME"] = str(asked.work / "home")
    figures: dict[str, object] = {"photos": asked.photos, "load": os.getloadavg()[0]}
    figures["first"] = timed(asked.encoder, photos)
    figures["second"] = timed(asked.encoder, photos)
    figures["kept_open"] = kept_open(asked.encoder, photos)
    crop_all(asked.folder, photos, asked.photos + 100)
    figures["after 100 new photos"] = timed(asked.encoder, photos)
    figures["load afterwards"] = os.getloadavg()[0]
    print(json.dumps(figures, indent=2))


def crop_all(source: Path, target: Path, count: int) -> None:
    """Write crops of at least half of each side, up to ``count``; what is there stays."""
    names = (".jpg", ".jpeg", ".png")
    found = sorted(path for path in source.rglob("*") if path.suffix.lower() in names)
    if not found:
        raise SystemExit(f"{source} has no photos.")
    for number, path in zip(range(count), itertools.cycle(found)):
        place = target / f"{number // _A_FOLDER:03}" / f"{number:06}.jpg"
        if place.exists():
            continue
        place.parent.mkdir(parents=True, exist_ok=True)
        chance = random.Random(number)
        image = to_rgb(open_raster(path))
        wide, high = (int(side * chance.uniform(0.5, 1)) for side in image.size)
        left, top = chance.randint(0, image.width - wide), chance.randint(0, image.height - high)
        image.crop((left, top, left + wide, top + high)).save(place, quality=88)


def timed(encoder: str, photos: Path) -> dict[str, float]:
    """Run one search in a process of its own; seconds of the clock, and of the processor."""
    command = [sys.executable, "-m", "aape.cli", "search", "--encoder", encoder, str(photos)]
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([*command, SENTENCE], check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"seconds": round(time.perf_counter() - start, 2), "processor": round(used, 2)}


def kept_open(encoder: str, photos: Path) -> dict[str, float]:
    """Return the cost of opening the index, of a sentence and of a photo, with the encoder open."""
    from aape.adapter.captions.search import PhotoSearch

    opened = PhotoSearch([photos], encoder=encoder)
    some = next(photos.rglob("*.jpg"))
    done: dict[str, float] = {}
    for name, ask in (
        ("open the index, first sentence", lambda: opened.text(SENTENCE)),
        ("another sentence", lambda: opened.text("a brown coat")),
        ("open the index, first photo", lambda: opened.like(some)),
        ("another photo", lambda: opened.like(some)),
    ):
        start, used = time.perf_counter(), time.process_time()
        ask()
        done[name] = round(time.perf_counter() - start, 3)
        done[f"{name}: processor"] = round(time.process_time() - used, 3)
    return done


if __name__ == "__main__":
    main()
