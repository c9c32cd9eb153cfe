"""A manifest of class names alone, for tests of what is asked about them."""

from __future__ import annotations

from collections.abc import Sequence

from aape.pipeline.datasets.manifest import Manifest


def toy_words(names: Sequence[str], name: str = "toy", category: str = "") -> Manifest:
    """Return a manifest without photos."""
    return Manifest.parse(
        {
            "name": name,
            "title": "Toy",
            "tasks": ["classification"],
            "category": category,
            "classes": [{"name": item} for item in names],
            "layouts": [{"kind": "image_folders"}],
            "licence": "none",
        },
        name,
    )
