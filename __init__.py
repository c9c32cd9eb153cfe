"""aape: adapt CLIP-like models to a visual domain with what language models know about it.

Every verb of the command line is a function of the same name, its words joined by ``_``:
``aape bank stats`` is ``aape.bank_stats``. It has the same options with the same defaults and
returns what ``--json`` prints, as an object. Names are imported when they are first used, so
``import aape`` stays instant.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_BANK, _DATASETS, _PROMPTS = (f".pipeline.{name}.verbs" for name in ("bank", "datasets", "prompts"))
_CLASSES, _CAPTIONS, _SUITE = (
    f".adapter.{name}.verbs" for name in ("classification", "captions", "suite")
)
# where each public name is
_PUBLIC = {
    # on arrays
    "Classifier": ".adapter.classifier",
    "Adapter": ".adapter.term_sum",
    "Aggregator": ".adapter.method.model",
    "Generator": ".adapter.method.model",
    "Recipe": ".adapter.method.recipe",
    "load_recipe": ".adapter.method.recipe",
    "add_baseline": ".adapter.baselines.own",
    # things
    "PromptBank": ".pipeline.bank",
    "Manifest": ".pipeline.datasets.manifest",
    "Prediction": ".adapter.predict",
    "extend": ".adapter.extend",
    "Results": ".adapter.results",
    "RunFolder": ".adapter.run",
    "UserError": ".pipeline.errors",
    "load_encoder": ".pipeline.encoders",
    "load_manifest": ".pipeline.datasets",
    "open_dataset": ".pipeline.datasets",
    # verbs
    "bank_card": _BANK,
    "bank_diff": _BANK,
    "bank_export": _BANK,
    "bank_info": _BANK,
    "bank_merge": _BANK,
    "bank_reindex": _BANK,
    "bank_search": _BANK,
    "bank_show": _BANK,
    "bank_sql": _BANK,
    "bank_stats": _BANK,
    "bank_verify": _BANK,
    "datasets_add": _DATASETS,
    "datasets_check": _DATASETS,
    "datasets_fetch": _DATASETS,
    "datasets_list": _DATASETS,
    "datasets_remove": _DATASETS,
    "datasets_show": _DATASETS,
    "demo": _SUITE,
    "encode": ".pipeline.embed.verbs",
    "encoders": ".pipeline.encoders.verbs",
    "eval_all": _SUITE,
    "eval_captioning": _CAPTIONS,
    "eval_classification": _CLASSES,
    "eval_retrieval": _CAPTIONS,
    "eval_vqa": _CAPTIONS,
    "generate_prompts": _PROMPTS,
    "import_prompts": _PROMPTS,
    "options": ".adapter.options",
    "predict": ".adapter.predict",
    "OpenModel": ".adapter.open_model",
    "open_model": ".adapter.open_model",
    "serve": ".adapter.serve",
    "export": ".adapter.export",
    "push": ".adapter.share",
    "pull": ".adapter.share",
    "doctor": ".adapter.doctor",
    "search": ".adapter.captions.search",
    "caption": ".adapter.captions.describe",
    "ask": ".adapter.captions.describe",
    "report": ".adapter.report",
    "suites": _SUITE,
    "sweep": _CLASSES,
    "train": _CLASSES,
    "train_captions": _CAPTIONS,
    "explain": ".adapter.explain",
    "compare": ".adapter.compare",
}

__all__ = sorted(_PUBLIC)
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_PUBLIC[name], __name__), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
