"""The engine ``ray``: many machines, one engine an actor, fed by Ray Data.

Every actor holds one of our engines (``transformers``, or ``vllm`` with its own interpreter), so
that Ray's own Python needs no vLLM. Answers stream back block by block.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from ...config import GenerationConfig
from ...errors import UserError
from ...ray_cluster import failed_worker, join_cluster
from ..requests import ModelIdentity, Request
from .base import Answer, ClosingEngine
from .vllm import PYTHON_VARIABLE


class _Actor:
    """One engine on one node. Ray keeps it alive between batches."""

    def __init__(self, config: dict[str, Any], model: dict[str, Any], python: str = "") -> None:
        if python:  # the driver's --engine-python, for this process alone
            os.environ[PYTHON_VARIABLE] = python
        from . import choose_engine, open_engine, resolve_model

        inner = GenerationConfig.model_validate(config)
        name = choose_engine(inner).name
        # The folder of the model may lie elsewhere on this node: it is found again by name.
        local = resolve_model(inner, name)
        wanted = ModelIdentity(**model)
        if local.revision != wanted.revision:
            raise UserError(
                f"A Ray node has another version of {wanted.name}: {local.revision} instead of "
                f"{wanted.revision}."
            )
        self._engine = open_engine(inner, local, name)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        import ray

        requests = [Request(**json.loads(text)) for text in batch["request"]]
        groups = [json.dumps([a.to_json() for a in g]) for g in self._engine.generate(requests)]
        node = ray.get_runtime_context().get_node_id()
        return {"answers": groups, "node": [node] * len(groups)}


class RayEngine(ClosingEngine):
    """A Ray Data pipeline over the requests, on the cluster of ``ray.address`` or a local one."""

    name = "ray"

    def __init__(self, config: GenerationConfig, model: ModelIdentity) -> None:
        self._ray, self._started = join_cluster(config.ray.address, "The engine ray")
        self._config, self._model = config, model
        self.version = self._ray.__version__
        self.nodes: set[str] = set()  # those that have answered

    def generate(self, requests: Sequence[Request]) -> Iterator[list[Answer]]:
        """Spread the requests over the actors: see :class:`~.base.Engine`."""
        import ray.data
        from ray.exceptions import RayError

        wanted = self._config.ray
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        inner = self._config.model_copy(update={"engine": wanted.engine})
        rows = [{"request": json.dumps(asdict(request))} for request in requests]
        blocks = max(1, min(len(rows), -(-len(rows) // wanted.batch_size)))
        answered = ray.data.from_items(rows, override_num_blocks=blocks).map_batches(
            _Actor,
            fn_constructor_args=(
                inner.model_dump(mode="json"),
                asdict(self._model),
                os.environ.get(PYTHON_VARIABLE, ""),
            ),
            compute=ray.data.ActorPoolStrategy(size=min(wanted.actors, blocks)),
            batch_size=wanted.batch_size,
            num_cpus=wanted.cpus,
            num_gpus=wanted.gpus or None,
        )
        try:
            for row in answered.iter_rows():
                self.nodes.add(row["node"])
                yield [Answer(**values) for values in json.loads(row["answers"])]
        except RayError as error:
            raise failed_worker(error) from error

    def close(self) -> None:
        """Leave the cluster, if we joined it."""
        if self._started and self._ray.is_initialized():
            self._ray.shutdown()
