"""Which encoders there are, and which can be used here and now."""

from __future__ import annotations

from dataclasses import dataclass

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
