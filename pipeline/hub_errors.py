"""What huggingface_hub raises where a hub refuses, is out of reach, or lacks a file."""

from __future__ import annotations

import os

_YES = frozenset(("1", "on", "yes", "true"))


def is_offline() -> bool:
    """Say whether ``HF_HUB_OFFLINE`` is set, by the words that huggingface_hub takes for yes."""
    return os.environ.get("HF_HUB_OFFLINE", "").strip().lower() in _YES


def is_of_hub(error: Exception) -> bool:
    """Say whether an error is the hub's or the network's, and not a fault of a program.

    Its classes differ by version: all of them are errors of the system or of a value, but those of
    the HTTP client below, which newer versions let through.

    >>> is_of_hub(ConnectionError("no route to host")), is_of_hub(TypeError("a fault of ours"))
    (True, False)
    """
    return isinstance(error, OSError | ValueError) or type(error).__module__.startswith("httpx")
