"""Where an open_clip model comes from: a name and a tag, a checkpoint, a folder, or a hub.

Everything that decides what a photo or a text becomes is settled here, before a model is built:
architecture, weights, preprocessing, context length, tokenizer.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..files import hash_value, read_json
from ..progress import step
from .base import hash_weights_file
from .checkpoints import State, is_long, join_long_positions, text_positions
from .families import QUICK, preprocessing
from .weights import download, find_local, is_torchscript, read_state

CONFIG = "open_clip_config.json"
# read by open_clip's tokenizers; others of a stranger's file would reach the tokenizer's loader
_TOKENIZER_OPTIONS = ("clean", "strip_sep_token", "language", "lower", "reduction_mask_mode")
_WEIGHTS = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
    "open_clip_pytorch_model.pth",
    "model.safetensors",
    "pytorch_model.bin",
    "pytorch_model.pth",
    "model.pth",
)


@dataclass(frozen=True)
class ClipSource:
    """One open_clip model, not yet built."""

    id: str
    architecture: str
    """What ``open_clip.create_model`` takes: a name, or ``local-dir:FOLDER``."""
    settings: dict[str, Any]
    """``model_cfg`` of the architecture."""
    weights: Path
    state: State | None
    tokenizer: str
    """What ``open_clip.get_tokenizer`` takes."""
    preprocess: dict[str, Any] = field(default_factory=dict)
    context_length: int | None = None
    """Where the weights have more or fewer text positions than the architecture."""
    beside: tuple[Any, ...] = ()
    """What else decides the vectors and is not in the id: part of the fingerprint."""

    @property
    def weights_hash(self) -> str:
        """Hash of the weights and of all else that decides the vectors."""
        weights = hash_weights_file(self.weights)
        return hash_value([weights, *self.beside]) if self.beside else weights


def find_clip(name: str, checkpoint: str = "") -> ClipSource:
    """Find an open_clip model by ``MODEL/TAG``, or ``MODEL`` with a checkpoint.

    Raises:
        UserError: unknown model or tag, absent weights, or a checkpoint without a preprocessing.
    """
    import open_clip

    model_name, _, tag = name.partition("/")
    path, config = resolve_weights(model_name, tag, checkpoint)
    archive = is_torchscript(path)
    original = archive or tag == "openai" or ".openai" in str(path)
    model_name = match_activation(model_name, tag, config, original=original)
    preprocess = preprocessing(model_name, config, openai=archive)
    state = read_state(path, model_name)
    if state and is_long(state):
        state = join_long_positions(state)
        model_name = match_activation(model_name, tag, config, original=True)
    settings: dict[str, Any] = dict(open_clip.get_model_config(model_name) or {})
    context = _context_length(settings, state)
    beside: list[Any] = []
    if preprocess and not config and not _is_default(preprocess):
        beside.append(preprocess)  # earlier versions read such checkpoints with OpenAI's
    if context:
        beside.append({"context_length": context})
        step(f"{path.name} reads {context} tokens of a text ({model_name} itself: "
             f"{settings['text_cfg'].get('context_length', 77)}).")  # fmt: skip
    return ClipSource(
        f"{model_name}/{tag or path.stem}",
        model_name,
        settings,
        path,
        state,
        model_name,
        preprocess,
        context,
        tuple(beside),
    )


def find_clip_folder(folder: Path, id: str) -> ClipSource:
    """Find the open_clip model in a folder as open_clip writes it for a hub.

    Raises:
        UserError: configuration or weights are absent, or ask for more than a model of open_clip.
    """
    config = read_json(folder / CONFIG)
    settings = config.get("model_cfg") if isinstance(config, dict) else None
    text = settings.get("text_cfg") if isinstance(settings, dict) else None
    vision = settings.get("vision_cfg") if isinstance(settings, dict) else None
    if not isinstance(settings, dict) or not isinstance(text, dict) or not isinstance(vision, dict):
        raise UserError(f"{folder / CONFIG} does not describe a model of open_clip.")
    options = text.get("tokenizer_kwargs") or {}
    if extra := sorted(set(options) - set(_TOKENIZER_OPTIONS)):
        raise UserError(
            f"{folder / CONFIG} gives its tokenizer the option {extra[0]!r}, which is not read.",
            f"Known: {', '.join(_TOKENIZER_OPTIONS)}.",
        )
    weights = _weights_in(folder)
    state = read_state(weights, id)
    local = f"local-dir:{folder}"
    wanted = text.get("hf_tokenizer_name")
    own_tokenizer = not wanted or any(folder.glob("tokenizer*")) or any(folder.glob("*.model"))
    named = ("tokenizer*", "vocab*", "merges.txt", "special_tokens_map.json", "*.model")
    files = sorted({path for glob in named for path in folder.glob(glob)})
    return ClipSource(
        id,
        local,
        settings,
        weights,
        state,
        local if own_tokenizer else str(wanted),
        {},
        _context_length(settings, state),
        (config, [hash_weights_file(path) for path in files if path.is_file()]),
    )


def _weights_in(folder: Path) -> Path:
    """Return the weights in a folder, in open_clip's own order of preference."""
    present = [path for path in (folder / name for name in _WEIGHTS) if path.is_file()]
    if present:
        return present[0]
    every = sorted(
        p for end in ("safetensors", "bin", "pth", "pt") for p in folder.glob(f"*.{end}")
    )
    if len(every) == 1:
        return every[0]
    if not every:
        raise UserError(f"There are no weights in {folder}.", f"Expected one of {_WEIGHTS[0]} ….")
    raise UserError(
        f"{folder} holds {len(every)} files of weights and none is named {_WEIGHTS[0]}.",
        "Keep one of them, or give it a name of open_clip's.",
    )


def _context_length(settings: dict[str, Any], state: State | None) -> int | None:
    """Return how many tokens the weights read, where the architecture says otherwise."""
    text = settings.get("text_cfg", {})
    positions = text_positions(state) if state else 0
    if not positions or "hf_model_name" in text:
        return None
    extra = int(bool(text.get("embed_cls")))
    own = int(text.get("context_length", 77))
    return positions - extra if positions != own + extra else None


def _is_default(preprocess: dict[str, Any]) -> bool:
    from open_clip.transform import PreprocessCfg

    return all(getattr(PreprocessCfg(), key) == value for key, value in preprocess.items())


def resolve_weights(model_name: str, tag: str, checkpoint: str) -> tuple[Path, dict[str, Any]]:
    """Find the weights and what open_clip knows about the tag (nothing for an unknown one).

    Raises:
        UserError: unknown model or tag, absent checkpoint, or no weights within reach.
    """
    import open_clip
    from open_clip.pretrained import get_pretrained_cfg, list_pretrained_tags_by_model

    models = open_clip.list_models()
    if model_name not in models:
        near = difflib.get_close_matches(model_name, [*models, "lite"], n=3, cutoff=0.4)
        guess = f"Did you mean {' or '.join(map(repr, near))}? " if near else ""
        raise UserError(
            f"Unknown encoder {model_name!r}.", f"{guess}`aape encoders --all` lists them."
        )
    config: dict[str, Any] = get_pretrained_cfg(model_name, tag) if tag else {}
    if checkpoint:
        path = Path(checkpoint)
        if not path.is_file():
            raise UserError(f"The checkpoint {path} does not exist.")
        return path, config
    tags = list_pretrained_tags_by_model(model_name)
    if not config:
        known = f"Known for {model_name}: {', '.join(tags)}." if tags else "It has none."
        what = f"Unknown weights {tag!r}" if tag else "No weights are named"
        raise UserError(f"{what} for the encoder {model_name}.", f"{known} Or give --checkpoint.")
    return find_local(config) or download(config, f"{model_name}/{tag}"), config


def match_activation(
    model_name: str, tag: str, config: dict[str, Any], *, original: bool = False
) -> str:
    """Return the name of the architecture with the activation the weights were trained with.

    OpenAI's weights want QuickGELU; with the plain name they load without complaint and lose
    accuracy. The plain name is corrected, which is said; a ``-quickgelu`` name for weights trained
    without it is refused.

    Args:
        original: the weights are OpenAI's, or were trained on in OpenAI's own architecture.

    Raises:
        UserError: the weights were trained without QuickGELU.
    """
    import open_clip
    from open_clip.pretrained import get_pretrained_cfg

    own = open_clip.get_model_config(model_name) or {}
    has_quick = bool(own.get("quick_gelu"))
    wants_quick = bool(config.get("quick_gelu")) or original
    if wants_quick and not has_quick and f"{model_name}{QUICK}" in open_clip.list_models():
        step(f"These weights want QuickGELU: using {model_name}{QUICK} for {model_name}.")
        return f"{model_name}{QUICK}"
    plain = get_pretrained_cfg(model_name.removesuffix(QUICK), tag) if tag else {}
    if (config or plain) and has_quick and not (wants_quick or plain.get("quick_gelu")):
        raise UserError(
            f"The weights {tag!r} were trained without QuickGELU.",
            f"Use the encoder {model_name.removesuffix(QUICK)}/{tag}.",
        )
    return model_name
