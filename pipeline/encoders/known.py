"""Which encoders there are, and which can be used here and now."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..embedded_packages import INSTALL_EMBEDDED
from ..errors import UserError

DEFAULT = "ViT-B-16-quickgelu/openai"

# by the beginning of the tag; what is not here is on the model card of the weights
_LICENCES = {
    "openai": "MIT",
    "laion": "MIT",
    "datacomp": "MIT",
    "commonpool": "MIT",
    "metaclip": "CC-BY-NC-4.0",
    "webli": "Apache-2.0",
    "dfn": "Apple sample code licence",
}


@dataclass(frozen=True)
class EncoderInfo:
    """One encoder: its name, whether its weights are here, and their licence."""

    name: str
    available: bool
    licence: str
    notes: str


def list_encoders(everything: bool = False) -> list[EncoderInfo]:
    """List ``lite``, OpenAI's models, and all whose weights are here; or all of open_clip's."""
    import open_clip
    from open_clip.pretrained import get_pretrained_cfg

    from .weights import find_local

    found = [_lite()]
    for model, tag in open_clip.list_pretrained():
        config = get_pretrained_cfg(model, tag)
        own = open_clip.get_model_config(model) or {}
        if bool(own.get("quick_gelu")) != bool(config.get("quick_gelu")):
            continue  # the pair that loses accuracy silently
        here = find_local(config) is not None
        if everything or here or tag == "openai":
            licence = next((v for k, v in _LICENCES.items() if tag.startswith(k)), "see model card")
            default = "the default when its weights are here" if f"{model}/{tag}" == DEFAULT else ""
            found.append(EncoderInfo(f"{model}/{tag}", here, licence, default))
    return found


def _lite() -> EncoderInfo:
    from .lite.towers import image_weights_path, text_folder

    try:
        image_weights_path()
        text_folder()
    except UserError:
        here = False
    else:
        here = True
    notes = "small, for demos, tests and laptops; its figures say nothing about CLIP"
    return EncoderInfo("lite", here, "Apache-2.0", notes)


@dataclass(frozen=True)
class Weights:
    """Where the weights of a model are; or what is missing, and how to get it."""

    name: str
    place: str
    licence: str = ""
    missing: list[str] = field(default_factory=list)
    get: str = ""


def where_are_weights(name: str = "auto", checkpoint: str = "") -> Weights:
    """Look for the weights of an encoder without reading them and without a network.

    ``name`` and ``checkpoint`` as for :func:`~aape.pipeline.encoders.load_encoder`.

    Raises:
        UserError: the name is unknown.
    """
    import os
    from pathlib import Path

    if name == "auto":
        from . import choose_automatically

        name = choose_automatically(checkpoint)
    if checkpoint:
        there = Path(checkpoint).expanduser().exists()
        return Weights(name, checkpoint, missing=[] if there else [checkpoint])
    if name == "lite":
        missing = [] if _lite().available else ["the packages of the embedded default"]
        return Weights(name, "installed packages", "Apache-2.0", missing, INSTALL_EMBEDDED)
    from .folders import has_scheme

    if has_scheme(name) or Path(name).expanduser().is_dir():
        return Weights(name, name)  # found, or fetched from its hub, when it is loaded
    from .weights import find_local

    model, _, tag = name.partition("/")
    config = _pretrained(model, tag)
    found = find_local(config)
    licence = next((v for k, v in _LICENCES.items() if tag.startswith(k)), "see model card")
    if found is not None:
        return Weights(name, str(found), licence)
    source = config.get("hf_hub") or config.get("url") or "open_clip"
    get = (
        f"the weights ({source}) are downloaded at the first use, where a network is; else put"
        " them on this machine and set encoder.checkpoint to the file"
    )
    cache = os.environ.get("HF_HOME", "~/.cache/huggingface")
    return Weights(name, cache, licence, [f"the weights of {name}"], get)


def _pretrained(model: str, tag: str) -> dict:
    import open_clip
    from open_clip.pretrained import get_pretrained_cfg

    config = get_pretrained_cfg(model, tag) if model in open_clip.list_models() else {}
    if not config:
        raise UserError(f"Unknown encoder {model}/{tag}.", "`aape encoders --all` lists them.")
    return config
