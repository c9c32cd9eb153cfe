"""Caption runs with the embedded models on shapes, tiny: train, caption with --train, search."""

from __future__ import annotations

from pathlib import Path

import pytest

from aape.adapter.captions import describe
from aape.adapter.captions.run import run_captions
from aape.adapter.captions.search import search
from aape.adapter.captions.settings import CaptionConfig, CaptionRunConfig, PrefixConfig
from aape.pipeline.config import EncoderConfig
from aape.pipeline.datasets import open_dataset


@pytest.mark.slow
def test_the_embedded_models_describe_shapes(tmp_path: Path) -> None:
    config = CaptionRunConfig(
        dataset="shapes",
        encoder=EncoderConfig(name="lite"),
        captions=CaptionConfig(epochs=1, max_images=24, max_validation=12),
        seeds=[1],
    )
    run_captions(config, tmp_path / "run")
    photos = [image.path for image in open_dataset("shapes").captions("test")[:3]]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(describe, "PrefixConfig", lambda: PrefixConfig(steps=4, batch_size=4))
        found = list(describe.caption(tmp_path / "run", photos, train=True))
    assert [row.path for row in found] == photos
    assert not any(row.error for row in found)  # after four steps a text may be empty
    assert list(describe.caption(tmp_path / "run", photos)) == found
    hits = search(photos, "a teal triangle", run=tmp_path / "run", k=2)
    assert len(hits) == 2
    assert {hit.path for hit in hits} <= set(photos)
