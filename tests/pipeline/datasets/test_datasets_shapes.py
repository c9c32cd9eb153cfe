"""The embedded data set `shapes`: classes, captions and questions from the package easy_vqa."""

from __future__ import annotations

import re

import pytest
from PIL import Image

from aape.pipeline.datasets import base_new_classes, load_manifest, open_dataset
from aape.pipeline.datasets.readers.shapes import COLOURS, SHAPES, colour_and_shape

pytest.importorskip("easy_vqa")

# The colours as they are drawn: fills named in the generator of easy-VQA.
RGB = {
    "black": (0, 0, 0),
    "blue": (0, 0, 255),
    "brown": (165, 42, 42),
    "gray": (128, 128, 128),
    "green": (0, 255, 0),
    "red": (255, 0, 0),
    "teal": (0, 128, 128),
    "yellow": (255, 255, 0),
}


@pytest.fixture(scope="module")
def shapes():
    return open_dataset("shapes")


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_every_split_has_the_published_size_and_every_class(shapes, split) -> None:
    items = shapes.items(split)
    assert len(items) == shapes.manifest.expected()[split]
    assert {item.label for item in items} == set(range(24))
    assert len({item.path for item in items}) == len(items)


def test_all_questions_are_kept(shapes) -> None:
    questions = [q for split in ("train", "val", "test") for q in shapes.questions(split)]
    assert len(questions) == 48_248
    assert len({answer for q in questions for answer in q.answers}) == 13
    assert len({q.question_id for q in questions}) == len(questions)
    assert {q.answer_type for q in questions} == {"yes/no", "color", "shape"}
    held_out = {q.image_id for q in shapes.questions("val")}
    assert not held_out & {q.image_id for q in shapes.questions("train")}


def test_the_derived_colour_is_the_colour_of_the_pixels(shapes) -> None:
    for item in shapes.items("test")[::10]:
        colour = shapes.class_names[item.label].split()[0]
        with Image.open(item.path) as image:
            pixels = image.convert("RGB").get_flattened_data()
        assert RGB[colour] in set(pixels), item.path


def test_captions_name_the_class_in_five_ways(shapes) -> None:
    items = {item.path: item.label for item in shapes.items("val")}
    for captioned in shapes.captions("val"):
        name = shapes.class_names[items[captioned.path]]
        assert captioned.captions[0] == f"a {name}"
        assert len(set(captioned.captions)) == 5
        assert all(name in caption for caption in captioned.captions)


def test_base_and_new_classes_share_every_colour_and_shape() -> None:
    names = load_manifest("shapes").class_names
    for half in base_new_classes(len(names)):
        words = {word for i in half for word in re.split(" ", names[i])}
        assert words == {*COLOURS, *SHAPES}
    assert len(set(names)) == 24


def test_elimination_settles_what_no_answer_names() -> None:
    no_to_seven = [(f"is there a {colour} shape?", "no") for colour in COLOURS if colour != "teal"]
    not_circle = [("is there not a circle?", "yes"), ("is no rectangle present?", "yes")]
    assert colour_and_shape(no_to_seven + not_circle) == ("teal", "triangle")
    assert colour_and_shape(no_to_seven[1:] + not_circle) is None
