"""aape: adapt CLIP-like models to a visual domain with what language models know about it.

Names are imported when they are first used, so ``import aape`` stays instant.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_PUBLIC = {
    "PromptBank": ".pipeline.bank",
    "UserError": ".pipeline.errors",
    "Manifest": ".pipeline.datasets.manifest",
    "load_manifest": ".pipeline.datasets",
    "open_dataset": ".pipeline.datasets",
    "extend": ".adapter.extend",
    "load_encoder": ".pipeline.encoders",
    "generate_prompts": ".pipeline.prompts.generate",
    "Results": ".adapter.results",
    "RunFolder": ".adapter.run",
    "predict": ".adapter.predict",
}

__all__ = sorted(_PUBLIC)
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_PUBLIC[name], __name__), name)


def __dir__() -> list[str]:
    return __all__
