"""Any open_clip model as an encoder: by ``MODEL/TAG``, or a local checkpoint.

b images, n texts, l tokens of the longest text of a batch, d width of the joint space.
"""

from __future__ import annotations

import difflib
import logging
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..errors import UserError
from ..progress import step
from .base import (
    ImageTransform,
    augmentation,
    fast_dtype,
    fingerprint,
    hash_weights_file,
    pick_device,
    to_rgb,
    unit,
)
from .prompt_tower import PromptTower, encode_embedded
from .weights import download, find_local, is_torchscript, load_into

_QUICK = "-quickgelu"


class ClipEncoder:
    """An open_clip model; see :class:`.base.Encoder` for what the methods return.

    Args:
        name: ``MODEL/TAG``, or ``MODEL`` with a checkpoint.
        checkpoint: a local file of weights (safetensors, ``.pt``, ``.bin``), or nothing.
        device: ``auto``, ``cpu``, ``cuda`` …
        precision: ``auto`` (bfloat16 where the hardware multiplies it), ``float32``, ``bfloat16``.

    Raises:
        UserError: unknown model or tag, absent weights, or weights of another architecture.
    """

    notes = ""

    def __init__(
        self, name: str, checkpoint: str = "", device: str = "auto", precision: str = "auto"
    ) -> None:
        import open_clip
        from open_clip.transform import PreprocessCfg, image_transform_v2
        from torchvision.transforms import Compose

        model_name, _, tag = name.partition("/")
        path, config = resolve_weights(model_name, tag, checkpoint)
        model_name = match_activation(model_name, tag, config, path)
        self.id = f"{model_name}/{tag or path.stem}"
        self.device = pick_device(device)
        self._dtype = fast_dtype(self.device) if precision == "auto" else getattr(torch, precision)
        self.precision = str(self._dtype).removeprefix("torch.")
        kept = ("mean", "std", "interpolation", "resize_mode")
        preprocess = {key: config[key] for key in kept if config.get(key)}
        with _without_warnings():  # that the model has no weights yet
            model: Any = open_clip.create_model(
                model_name, pretrained_text=False, force_preprocess_cfg=preprocess
            )
        load_into(model, path, model_name)
        self.weights_hash = hash_weights_file(path)
        self._model = model.eval().to(self.device)
        self._read = _image_reader(model.visual)
        self._tokenizer = _tokenizer(model_name)
        self.dim = int(open_clip.get_model_config(model_name)["embed_dim"])  # type: ignore[index]
        self.token_dim = _token_width(model.visual)
        self.logit_scale = float(model.logit_scale.detach().exp())
        self.context_length = int(model.context_length)
        settings = open_clip.get_model_preprocess_cfg(model)
        size = settings["size"]
        transform: Any = image_transform_v2(PreprocessCfg(**settings), is_train=False)
        self.transform: ImageTransform = Compose([to_rgb, transform])
        side = size if isinstance(size, int) else size[0]
        self.augment = augmentation(side, settings["mean"], settings["std"])
        self.preprocessing = "open_clip " + " ".join(
            f"{key}={settings[key]}"
            for key in ("size", "interpolation", "resize_mode", "mean", "std")
        )

    @property
    def fingerprint(self) -> str:
        """Id and weights."""
        return fingerprint(self.id, self.weights_hash)

    @torch.inference_mode()
    def encode_text(self, texts: Sequence[str]) -> np.ndarray:
        """Encode one batch: (n,) texts to (n, d)."""
        if not len(texts):
            return np.zeros((0, self.dim), np.float32)
        tokens = self._tokenizer(list(texts)).to(self.device)
        with self._fast():
            return unit(_encode_tokens(self._model, tokens)).cpu().numpy()

    @torch.inference_mode()
    def encode_images(self, pixels: torch.Tensor) -> torch.Tensor:
        """Encode one batch: (b, 3, h, w) to (b, d)."""
        with self._fast():
            return unit(self._read(pixels.to(self.device))[0])

    @torch.inference_mode()
    def image_tokens(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return the patch tokens, or the last map, before pooling: (b, t, e)."""
        return self.encode_images_and_tokens(pixels)[1]

    @torch.inference_mode()
    def encode_images_and_tokens(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return features (b, d) and tokens (b, t, e) in one pass."""
        with self._fast():
            pooled, tokens = self._read(pixels.to(self.device))
        return unit(pooled), tokens.float()

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Count the tokens of each text with start and end, before truncation."""
        tokenizer = self._tokenizer
        if hasattr(tokenizer, "encode"):
            return [len(tokenizer.encode(text)) + 2 for text in texts]
        return [len(row) for row in tokenizer.tokenizer(list(texts))["input_ids"]]

    def prompt_tower(self) -> PromptTower | None:
        """Return the text tower open for learned contexts, or nothing where it is not causal."""
        return PromptTower(self._model, self._tokenizer) if _is_causal(self._model) else None

    def _fast(self) -> AbstractContextManager[Any]:
        wanted = self._dtype != torch.float32
        return torch.autocast(self.device.type, dtype=self._dtype, enabled=wanted)


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


def match_activation(model_name: str, tag: str, config: dict[str, Any], path: Path) -> str:
    """Return the name of the architecture with the activation the weights were trained with.

    OpenAI's weights want QuickGELU; with the plain name they load without complaint and lose
    accuracy. The plain name is corrected, which is said; a ``-quickgelu`` name for weights trained
    without it is refused.

    Raises:
        UserError: the weights were trained without QuickGELU.
    """
    import open_clip
    from open_clip.pretrained import get_pretrained_cfg

    own = open_clip.get_model_config(model_name) or {}
    has_quick = bool(own.get("quick_gelu"))
    original = is_torchscript(path) or tag == "openai" or ".openai" in str(path)
    wants_quick = bool(config.get("quick_gelu")) or original
    if wants_quick and not has_quick and f"{model_name}{_QUICK}" in open_clip.list_models():
        step(f"These weights want QuickGELU: using {model_name}{_QUICK} for {model_name}.")
        return f"{model_name}{_QUICK}"
    plain = get_pretrained_cfg(model_name.removesuffix(_QUICK), tag) if tag else {}
    if (config or plain) and has_quick and not (wants_quick or plain.get("quick_gelu")):
        raise UserError(
            f"The weights {tag!r} were trained without QuickGELU.",
            f"Use --encoder {model_name.removesuffix(_QUICK)}/{tag}.",
        )
    return model_name


def _is_causal(model: Any) -> bool:
    from open_clip import CLIP

    standard = type(model) is CLIP and model.text_pool_type == "argmax"
    return standard and model.attn_mask is not None


def _encode_tokens(model: Any, tokens: torch.Tensor) -> torch.Tensor:
    """Encode (n, context) tokens to (n, d), cut to the longest text where that changes nothing.

    A causal tower that reads the end token never looks at what follows it, so the padding after
    the longest text of the batch (77 tokens hold few real ones) is not computed.
    """
    if not _is_causal(model):
        return model.encode_text(tokens)
    length = int(tokens.argmax(1).max()) + 1  # the end token has the highest number
    tokens = tokens[:, :length]  # (n, l)
    return encode_embedded(model, model.token_embedding(tokens), tokens.argmax(1))


@contextmanager
def _without_warnings() -> Iterator[None]:
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def _tokenizer(model_name: str) -> Any:
    import open_clip

    try:
        return open_clip.get_tokenizer(model_name)
    except OSError as error:
        raise UserError(
            f"The tokenizer of {model_name} is not on this machine.",
            "Fetch it once on a machine with a network, or use a model with CLIP's own tokenizer.",
        ) from error


def _token_width(visual: Any) -> int:
    if hasattr(visual, "trunk"):
        return int(visual.trunk.num_features)
    if hasattr(visual, "layer4"):
        return int(visual.attnpool.c_proj.in_features)
    return int(visual.ln_post.normalized_shape[0])


def _image_reader(visual: Any) -> Any:
    """Return a function from pixels to (features (b, d), spatial tokens (b, t, e))."""
    if hasattr(visual, "trunk"):  # a timm tower
        trunk = visual.trunk

        def read_timm(pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            maps = trunk.forward_features(pixels)
            pooled = visual.head(trunk.forward_head(maps))
            if maps.ndim == 4:
                return pooled, maps.flatten(2).transpose(1, 2)
            return pooled, maps[:, getattr(trunk, "num_prefix_tokens", 0) :]

        return read_timm
    if hasattr(visual, "layer4"):  # CLIP's ResNet: the map that goes into the attention pool

        def read_resnet(pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            x = visual.stem(pixels)
            for layer in (visual.layer1, visual.layer2, visual.layer3, visual.layer4):
                x = layer(x)
            return visual.attnpool(x), x.flatten(2).transpose(1, 2)

        return read_resnet
    visual.output_tokens = True

    def read_vit(pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return visual(pixels)

    return read_vit
