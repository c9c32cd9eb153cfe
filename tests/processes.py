"""Work done by several processes that form a group, as ``torchrun`` starts them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

from places import TESTS

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
    place = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    if home:
        place["AAPE_HOME"] = str(home)
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True, text=True, timeout=240, env=os.environ | place,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr
