"""Work done by several processes that form a group, as ``torchrun`` starts them; its rows."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

from places import TESTS
from safetensors import safe_open

from aape.pipeline.files import cache_folder

# Torch is imported once, in a process that forks the others.
_FORK = """
import os, sys, traceback
sys.path.insert(0, {tests!r})
import torch
torch.set_num_threads(1)
{prepare}
children = []
for rank in range({count}):
    child = os.fork()
    if child:
        children.append(child)
        continue
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank))
    status = 1
    try:
        {work}(rank)
        status = 0
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
sys.exit(sum(os.waitpid(child, 0)[1] != 0 for child in children))
"""


def free_port() -> int:
    """Return a port of this machine on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def run_group(prepare: str, work: str, count: int = 2, home: Path | None = None) -> str:
    """Run ``work(rank)``, a function that the code ``prepare`` defines, in a group of processes.

    Returns:
        What they printed on both outputs. A process that fails fails the test.
    """
    script = _FORK.format(tests=str(TESTS), prepare=prepare, work=work, count=count)
    try:
        done = _run(script, count, home, 120)
    except subprocess.TimeoutExpired:  # a port that another took meanwhile: they wait for ever
        done = _run(script, count, home, 240)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def _run(
    script: str, count: int, home: Path | None, seconds: float
) -> subprocess.CompletedProcess[str]:
    place = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    if home:
        place["AAPE_HOME"] = str(home)
    return subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True, text=True, timeout=seconds, env=os.environ | place,
    )  # fmt: skip


def home_with_models(home: Path) -> Path:
    """Make an empty home that knows the models of the present one: they are not prepared again."""
    models = cache_folder("models")
    home.mkdir()
    (home / "models").symlink_to(models)
    return home


def stored_keys(home: Path) -> list[bytes]:
    """Every key of every shard, with the folder of its store; one that is there twice is twice."""
    found = []
    for shard in (*home.glob("features/**/*.safetensors"), *home.glob("texts/*/*.safetensors")):
        with safe_open(shard, framework="np") as opened:
            where = shard.parent.name.encode()
            found += [where + key.tobytes() for key in opened.get_tensor("keys")]
    return sorted(found)
