"""Data sets: manifests, how their folders look on disk, splits, captions, questions."""

from .catalogue import known_datasets, load_manifest
from .dataset import Dataset, open_dataset
from .manifest import ClassEntry, Manifest, Query
from .records import CaptionedImage, Contrast, Item, Question, Split
from .splits import base_new_classes, few_shot, few_shot_train_val

__all__ = [
    "CaptionedImage",
    "ClassEntry",
    "Contrast",
    "Dataset",
    "Item",
    "Manifest",
    "Query",
    "Question",
    "Split",
    "base_new_classes",
    "few_shot",
    "few_shot_train_val",
    "known_datasets",
    "load_manifest",
    "open_dataset",
]
