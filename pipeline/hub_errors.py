"""What huggingface_hub raises where a hub refuses, is out of reach, or lacks a file."""

from __future__ import annotations


def is_of_hub(error: Exception) -> bool:
    """Say whether an error is the hub's or the network's, and not a fault of a program.

    Its classes differ by version: all of them are errors of the system or of a value, but those of
    the HTTP client below, which newer versions let through.

    >>> is_of_hub(ConnectionError("no route to host")), is_of_hub(TypeError("a fault of ours"))
    (True, False)
    """
    return isinstance(error, OSError | ValueError) or type(error).__module__.startswith("httpx")
