"""The way to a Ray cluster, for all that runs on one: generation, encoding, sweeps."""

from __future__ import annotations

import logging
import os
import socket
from typing import Any

from .errors import UserError, missing_extra


def join_cluster(address: str, what: str) -> tuple[Any, bool]:
    """Return the module ``ray``, connected, and whether this call connected it.

    Args:
        address: of a running cluster, ``host:port`` or ``auto``; empty: ``$RAY_ADDRESS``, else the
            one that runs on this machine, else a new one here.
        what: who needs it, for the error message.

    Raises:
        UserError: Ray is not installed, or nobody listens there.
    """
    try:
        import ray
    except ImportError as error:
        raise missing_extra("ray[data]", "ray", what) from error
    if ray.is_initialized():
        return ray, False
    address = address or os.environ.get("RAY_ADDRESS", "")
    try:
        _check_listening(address)
        ray.init(address=address or None, log_to_driver=False, logging_level=logging.WARNING)
    except (OSError, ValueError) as error:
        raise UserError(
            f"No Ray cluster at {address}: {error}.", "Start one with: ray start --head."
        ) from error
    return ray, True


def failed_worker(error: Exception) -> UserError:
    """Build the error for work on a cluster that ended with one of Ray's own."""
    lines = [line for line in str(error).strip().splitlines() if line.strip()]
    reason = lines[-1].strip()[:300] if lines else type(error).__name__
    return UserError(
        f"A Ray worker failed: {reason.rstrip('.')}.",
        "Finished work is kept; run the same command again.",
    )


def _check_listening(address: str) -> None:
    """Raise OSError where nobody listens at host:port; Ray itself would wait for minutes."""
    host, colon, port = address.partition(":")
    if colon and port.isdigit():
        socket.create_connection((host, int(port)), timeout=10).close()
