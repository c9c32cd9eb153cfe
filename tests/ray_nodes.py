"""A Ray cluster of two nodes on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import pytest


class Nodes(NamedTuple):
    """The cluster, and its second node, which can be killed."""

    cluster: Any
    second: Any

    def kill_second(self) -> None:
        """Kill its processes. Who works afterwards does not wait for as many actors as before."""
        import ray.data

        ray.data.DataContext.get_current().wait_for_min_actors_s = -1
        self.cluster.remove_node(self.second, allow_graceful=False)


@contextmanager
def two_nodes(monkeypatch: pytest.MonkeyPatch, cpus: int = 2) -> Iterator[Nodes]:
    """Start both, each with some processors, and connect to them."""
    import ray
    import ray.data
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("RAY_worker_niceness", "0")  # on a busy machine 15 would starve them
    # a node gives up where its agent needs over 15 s to start; without a dashboard it needs less
    monkeypatch.setattr("ray._private.utils.get_dashboard_dependency_error", lambda: ImportError())
    running = Cluster()
    for _ in range(2):
        second = _added(running, cpus)
    ray.init(address=running.address, log_to_driver=False)
    # else the node that loads its model first may do all of so little work
    context = ray.data.DataContext.get_current()
    monkeypatch.setattr(context, "wait_for_min_actors_s", 300)
    try:
        yield Nodes(running, second)
    finally:
        ray.shutdown()
        running.shutdown()


def _added(running: Any, cpus: int, tries: int = 4) -> Any:
    """Add a node, on a busy machine at a later try."""
    for left in reversed(range(tries)):
        try:
            return running.add_node(num_cpus=cpus, object_store_memory=100 * 2**20)
        except Exception as error:
            if "timed out during startup" not in str(error) or not left:
                raise
            if running.head_node is None:
                running.shutdown()
    raise AssertionError
