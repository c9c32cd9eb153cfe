"""What a folder or table of a user turned out to be."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..manifest import ClassEntry, Task
from .layouts import Layout

TEXT_TASKS: list[Task] = ["retrieval", "captioning"]


@dataclass(frozen=True)
class Found:
    """A root, its layout and classes, what they serve, and what is to be said about them."""

    root: Path
    layout: Layout
    classes: list[ClassEntry]
    tasks: list[Task]
    remarks: tuple[str, ...] = ()


def tasks_of(*, labels: bool, captions: bool) -> list[Task]:
    """Return the tasks that labels and captions serve."""
    tasks: list[Task] = ["classification"] if labels else []
    return tasks + TEXT_TASKS if captions else tasks
