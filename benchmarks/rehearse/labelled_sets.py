"""The fifteen labelled data sets of the paper in miniature, each laid out as its download lies.

Folders, split files, MATLAB files and odd spellings are those of the originals and of CoOp's
DATASETS.md; class names and their number are the manifests'; the pictures are drawn.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from drawn_pictures import Pictures

from aape.pipeline.datasets import load_manifest

PARTS = ("train", "val", "test")


@dataclass(frozen=True)
class Counts:
    """Pictures of a class in each split."""

    train: int = 2
    val: int = 1
    test: int = 1

    def each(self) -> Iterator[tuple[str, int]]:
        """Yield split and number of every picture of a class."""
        for part in PARTS:
            for copy in range(getattr(self, part)):
                yield part, copy


def _folders(name: str) -> list[tuple[int, str, str]]:
    """Return id, name and folder of every class."""
    entries = load_manifest(name).classes
    return [(i, entry.name, entry.folder or entry.name) for i, entry in enumerate(entries)]


def _split_file(path: Path, rows: dict[str, list]) -> None:
    path.write_text(json.dumps(rows), encoding="utf-8")


def _lines(path: Path, lines: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _in_folders(
    name: str,
    root: Path,
    images: str,
    file: Callable[[int, str, int], str],
    pictures: Pictures,
    counts: Counts,
) -> dict[str, list]:
    """Write one folder a class and return the rows of CoOp's split file."""
    rows: dict[str, list] = {part: [] for part in PARTS}
    for label, title, folder in _folders(name):
        for number, (part, copy) in enumerate(counts.each()):
            path = f"{folder}/{file(number, folder, label)}"
            pictures.write(root / images / path, label, part, copy)
            rows[part].append([path, label, title])
    return rows


def imagenet(data: Path, pictures: Pictures, counts: Counts) -> None:
    """``imagenet/images/{train,val}/n01440764``, and CLIP's class names in ``classnames.txt``."""
    root, number = data / "imagenet", 0
    for label, _, wnid in _folders("imagenet"):
        for copy in range(counts.train):
            path = root / "images" / "train" / wnid / f"{wnid}_{copy + 26}.JPEG"
            pictures.write(path, label, "train", copy)
        for copy in range(counts.test):
            number += 1
            file = f"ILSVRC2012_val_{number:08d}.JPEG"
            pictures.write(root / "images" / "val" / wnid / file, label, "test", copy)
    _class_names(root)


def _class_names(root: Path) -> None:
    names = [f"{wnid} {name}" for _, name, wnid in _folders("imagenet")]
    _lines(root / "classnames.txt", names)


def imagenet_variants(data: Path, pictures: Pictures, counts: Counts) -> None:
    """V2 by class number, Sketch, A and R by folder, each with the names that CoOp has copied."""
    v2 = data / "imagenetv2"
    for label, _, _ in _folders("imagenet"):
        file = f"{label:040x}.jpeg"
        folder = v2 / "imagenetv2-matched-frequency-format-val" / str(label)
        pictures.write(folder / file, label, "test")
    sketch = data / "imagenet-sketch"
    for label, _, wnid in _folders("imagenet"):
        pictures.write(sketch / "images" / wnid / "sketch_0.JPEG", label, "test")
    adversarial, rendition = data / "imagenet-adversarial", data / "imagenet-rendition"
    for label, name, wnid in _folders("imagenet-a"):
        file = f"0.000116_{name} _ {name}_0.865662.jpg".replace("/", "-")
        pictures.write(adversarial / "imagenet-a" / wnid / file, label, "test")
    for label, _, wnid in _folders("imagenet-r"):
        pictures.write(rendition / "imagenet-r" / wnid / "art_0.jpg", label, "test")
    for root in (adversarial / "imagenet-a", rendition / "imagenet-r"):
        _lines(root / "README.txt", ["wnids and names"])
    for root in (v2, sketch, adversarial, rendition):
        _class_names(root)


def caltech101(data: Path, pictures: Pictures, counts: Counts) -> None:
    """With the two folders that CoOp leaves out, and the file without a suffix in one of them."""
    root = data / "caltech-101"
    rows = _in_folders(
        "caltech101", root, "101_ObjectCategories",
        lambda n, folder, label: f"image_{n + 1:04d}.jpg", pictures, counts,
    )  # fmt: skip
    for folder in ("BACKGROUND_Google", "Faces_easy"):
        path = root / "101_ObjectCategories" / folder / "image_0001.jpg"
        pictures.write(path, 0, "train", 1)
    _lines(root / "101_ObjectCategories" / "BACKGROUND_Google" / "tmp", ["#!/bin/csh"])
    _split_file(root / "split_zhou_Caltech101.json", rows)


def pets(data: Path, pictures: Pictures, counts: Counts) -> None:
    """Breeds of cats have a capital; the archive has three MATLAB files among the photos."""
    root = data / "oxford_pets"
    cats = {
        "abyssinian", "bengal", "birman", "bombay", "british shorthair", "egyptian mau",
        "maine coon", "persian", "ragdoll", "russian blue", "siamese", "sphynx",
    }  # fmt: skip
    rows: dict[str, list] = {part: [] for part in PARTS}
    lists: dict[str, list[str]] = {"trainval": [], "test": []}
    for label, name, _ in _folders("pets"):
        breed = name.replace(" ", "_")
        stem = breed.title() if name in cats else breed
        for number, (part, copy) in enumerate(counts.each(), start=1):
            pictures.write(root / "images" / f"{stem}_{number}.jpg", label, part, copy)
            rows[part].append([f"{stem}_{number}.jpg", label, breed])
            species = 1 if name in cats else 2
            line = f"{stem}_{number} {label + 1} {species} {label % 12 + 1}"
            lists["test" if part == "test" else "trainval"].append(line)
    (root / "images" / "Abyssinian_100.mat").write_bytes(b"MATLAB 5.0 MAT-file")
    for part, lines in lists.items():
        _lines(root / "annotations" / f"{part}.txt", lines)
    _lines(root / "annotations" / "list.txt", ["#Image CLASS-ID SPECIES BREED ID"])
    _split_file(root / "split_zhou_OxfordPets.json", rows)


def cars(data: Path, pictures: Pictures, counts: Counts) -> None:
    """Numbered photos, and the labels of both halves in MATLAB files."""
    from scipy.io import savemat

    root = data / "stanford_cars"
    rows: dict[str, list] = {part: [] for part in PARTS}
    halves: dict[str, list[tuple]] = {"cars_train": [], "cars_test": []}
    for label, name, _ in _folders("cars"):
        for part, copy in counts.each():
            half = "cars_test" if part == "test" else "cars_train"
            file = f"{len(halves[half]) + 1:05d}.jpg"
            pictures.write(root / half / file, label, part, copy)
            halves[half].append((30, 52, 246, 147, label + 1, file))
            rows[part].append([f"{half}/{file}", label, name])
    kind = np.dtype([(n, object) for n in
                     ("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2", "class", "fname")])  # fmt: skip
    (root / "devkit").mkdir()
    for half, file in (("cars_train", "devkit/cars_train_annos.mat"),
                       ("cars_test", "cars_test_annos_withlabels.mat")):  # fmt: skip
        savemat(root / file, {"annotations": np.array([halves[half]], dtype=kind)})
    names = np.array([[name for _, name, _ in _folders("cars")]], dtype=object)
    savemat(root / "devkit" / "cars_meta.mat", {"class_names": names})
    _split_file(root / "split_zhou_StanfordCars.json", rows)


def flowers(data: Path, pictures: Pictures, counts: Counts) -> None:
    """Numbered photos, labels and the published split in MATLAB files, names by number in JSON."""
    from scipy.io import savemat

    root = data / "oxford_flowers"
    rows: dict[str, list] = {part: [] for part in PARTS}
    labels: list[int] = []
    numbers: dict[str, list[int]] = {part: [] for part in PARTS}
    for label, name, _ in _folders("flowers"):
        for part, copy in counts.each():
            labels.append(label + 1)
            numbers[part].append(len(labels))
            file = f"image_{len(labels):05d}.jpg"
            pictures.write(root / "jpg" / file, label, part, copy)
            rows[part].append([file, label, name])
    savemat(root / "imagelabels.mat", {"labels": np.array([labels], dtype=np.uint8)})
    sets = {"trnid": "train", "valid": "val", "tstid": "test"}
    savemat(root / "setid.mat", {name: np.array([numbers[part]], dtype=np.uint16)
                                 for name, part in sets.items()})  # fmt: skip
    names = {str(label + 1): name for label, name, _ in _folders("flowers")}
    (root / "cat_to_name.json").write_text(json.dumps(names), encoding="utf-8")
    _split_file(root / "split_zhou_OxfordFlowers.json", rows)


def food101(data: Path, pictures: Pictures, counts: Counts) -> None:
    """``images/apple_pie/1005649.jpg``, and the lists of the archive in ``meta``."""
    root = data / "food-101"
    rows = _in_folders("food101", root, "images",
                       lambda n, folder, label: f"{1005649 + label * 100 + n}.jpg",
                       pictures, counts)  # fmt: skip
    for part, sources in (("train", ("train", "val")), ("test", ("test",))):
        paths = [row[0].removesuffix(".jpg") for source in sources for row in rows[source]]
        _lines(root / "meta" / f"{part}.txt", paths)
    _lines(root / "meta" / "classes.txt", [folder for _, _, folder in _folders("food101")])
    _lines(root / "meta" / "labels.txt", [name for _, name, _ in _folders("food101")])
    _split_file(root / "split_zhou_Food101.json", rows)


def aircraft(data: Path, pictures: Pictures, counts: Counts) -> None:
    """Numbered photos and lists of ``number variant``; variants may have blanks and slashes."""
    root, number = data / "fgvc_aircraft", 34309
    lists: dict[str, list[str]] = {part: [] for part in PARTS}
    for label, name, _ in _folders("aircraft"):
        for part, copy in counts.each():
            number += 7
            pictures.write(root / "images" / f"{number:07d}.jpg", label, part, copy)
            lists[part].append(f"{number:07d} {name}")
    for part, lines in lists.items():
        _lines(root / f"images_variant_{part}.txt", lines)
    _lines(root / "images_variant_trainval.txt", lists["train"] + lists["val"])
    _lines(root / "variants.txt", [name for _, name, _ in _folders("aircraft")])


def sun397(data: Path, pictures: Pictures, counts: Counts) -> None:
    """``SUN397/a/apse/indoor/sun_….jpg``, and ten partitions with a slash before each path."""
    root = data / "sun397"
    rows = _in_folders("sun397", root, "SUN397",
                       lambda n, folder, label: f"sun_a{label:03d}x{n:010d}.jpg",
                       pictures, counts)  # fmt: skip
    for part, sources in (("Training", ("train", "val")), ("Testing", ("test",))):
        paths = [f"/{row[0]}" for source in sources for row in rows[source]]
        _lines(root / f"{part}_01.txt", paths)
    _lines(root / "ClassName.txt", [f"/{folder}" for _, _, folder in _folders("sun397")])
    _split_file(root / "split_zhou_SUN397.json", rows)


def dtd(data: Path, pictures: Pictures, counts: Counts) -> None:
    """The lists of the first partition, and a stray file of a file manager among the photos."""
    root = data / "dtd"
    rows = _in_folders("dtd", root, "images",
                       lambda n, folder, label: f"{folder}_{n + 1:04d}.jpg",
                       pictures, counts)  # fmt: skip
    for part in PARTS:
        _lines(root / "labels" / f"{part}1.txt", [row[0] for row in rows[part]])
    _lines(
        root / "labels" / "labels_joint_anno.txt", [f"{row[0]} {row[2]}" for row in rows["test"]]
    )
    (root / "images" / "waffled" / ".directory").write_text("[Dolphin]\n")
    _split_file(root / "split_zhou_DescribableTextures.json", rows)


def eurosat(data: Path, pictures: Pictures, counts: Counts) -> None:
    """``2750/AnnualCrop/AnnualCrop_1.jpg``: the folder is called after its number of images."""
    root = data / "eurosat"

    def file(number: int, folder: str, label: int) -> str:
        return f"{folder}_{number + 1}.jpg"

    rows = _in_folders("eurosat", root, "2750", file, pictures, counts)
    _split_file(root / "split_zhou_EuroSAT.json", rows)


def ucf101(data: Path, pictures: Pictures, counts: Counts) -> None:
    """Middle frames, named like their clips: the class without its blanks, group and clip."""
    root = data / "ucf101"
    rows = _in_folders(
        "ucf101", root, "UCF-101-midframes",
        lambda n, folder, label: f"v_{folder.replace('_', '')}_g{n + 1:02d}_c01.jpg",
        pictures, counts,
    )  # fmt: skip
    for some in rows.values():
        for row in some:
            row[2] = row[0].split("/")[0]
    _split_file(root / "split_zhou_UCF101.json", rows)


Writer = Callable[[Path, Pictures, Counts], None]
WRITERS: dict[str, Writer] = {
    "imagenet": imagenet,
    "caltech101": caltech101,
    "pets": pets,
    "cars": cars,
    "flowers": flowers,
    "food101": food101,
    "aircraft": aircraft,
    "sun397": sun397,
    "dtd": dtd,
    "eurosat": eurosat,
    "ucf101": ucf101,
}
