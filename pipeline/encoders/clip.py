"""Any open_clip model as an encoder: by ``MODEL/TAG``, or a local checkpoint.

b images, n texts, l tokens of the longest text of a batch, d width of the joint space.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import numpy as np
import torch

from ..errors import UserError
from ..pictures import to_rgb
from .base import (
    ImageTransform,
    fast_dtype,
    fingerprint,
    pick_device,
    unit,
)
from .before_projection import BeforeProjection
from .clip_sources import ClipSource, find_clip
from .compiled import CompiledTower
from .photo_transforms import Augmentation
from .prompt_tower import PromptTower, encode_embedded
from .weights import load_into


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
        self._build(find_clip(name, checkpoint), device, precision)

    @classmethod
    def from_source(
        cls, source: ClipSource, device: str = "auto", precision: str = "auto"
    ) -> ClipEncoder:
        """Build the model that was found, see :mod:`.clip_sources`."""
        encoder = cls.__new__(cls)
        encoder._build(source, device, precision)
        return encoder

    def _build(self, source: ClipSource, device: str, precision: str) -> None:
        import open_clip
        from open_clip.transform import PreprocessCfg, image_transform_v2
        from torchvision.transforms import Compose

        self.id = source.id
        self.device = pick_device(device)
        self._dtype = fast_dtype(self.device) if precision == "auto" else getattr(torch, precision)
        self.precision = str(self._dtype).removeprefix("torch.")
        with _without_warnings():  # that the model has no weights yet
            model: Any = _create(source)
        load_into(model, source.state, source.weights, source.id)
        self.weights_hash = source.weights_hash
        self._model = model.eval().to(self.device)
        self._read = _image_reader(model.visual)
        self.context_length = source.context_length or int(model.context_length)
        self._tokenizer = _tokenizer(source)
        self.dim = int(source.settings["embed_dim"])
        self.token_dim = _token_width(model.visual)
        self.logit_scale = float(model.logit_scale.detach().exp())
        bias = getattr(model, "logit_bias", None)
        self.logit_bias = 0.0 if bias is None else float(bias.detach())
        settings = open_clip.get_model_preprocess_cfg(model)
        size = settings["size"]
        transform: Any = image_transform_v2(PreprocessCfg(**settings), is_train=False)
        self.transform: ImageTransform = Compose([to_rgb, transform])
        side = size if isinstance(size, int) else size[0]
        self.augment = Augmentation(side, tuple(settings["mean"]), tuple(settings["std"]))
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
        return unit(self._unscaled(texts)).cpu().numpy()

    @torch.inference_mode()
    def text_norms(self, texts: Sequence[str]) -> np.ndarray:
        """Return the lengths (n,) of text vectors before they are scaled to 1."""
        return self._unscaled(texts).float().norm(dim=-1).cpu().numpy()

    def _unscaled(self, texts: Sequence[str]) -> torch.Tensor:
        tokens = self._tokenizer(list(texts))
        if _is_causal(self._model):
            tokens = _cut_padding(tokens)
        with self.fast():
            return _encode_tokens(self._model, tokens.to(self.device))

    @torch.inference_mode()
    def encode_images(self, pixels: torch.Tensor) -> torch.Tensor:
        """Encode one batch: (b, 3, h, w) to (b, d)."""
        with self.fast():
            return unit(self._read(pixels.to(self.device))[0])

    @torch.inference_mode()
    def image_tokens(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return the patch tokens, or the last map, before pooling: (b, t, e)."""
        return self.encode_images_and_tokens(pixels)[1]

    @torch.inference_mode()
    def encode_images_and_tokens(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return features (b, d) and tokens (b, t, e) in one pass."""
        with self.fast():
            pooled, tokens = self._read(pixels.to(self.device))
        return unit(pooled), tokens.float()

    def compile_images(self, always: bool = False) -> None:
        """Compile the image tower at the first large batch, if it is ``always`` or faster so."""
        self._read = CompiledTower(self._read, always)

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Count the tokens of each text with start and end, before truncation."""
        tokenizer = self._tokenizer
        if hasattr(tokenizer, "encode"):
            return [len(tokenizer.encode(text)) + 2 for text in texts]
        return [len(row) for row in tokenizer.tokenizer(list(texts))["input_ids"]]

    def image_tower(self) -> torch.nn.Module:
        """Return a copy of the tower for export: scaled pixels (b, 3, h, w) to (b, d), float32."""
        tower = copy.deepcopy(self._model.visual).float().cpu()
        tower.output_tokens = False
        return tower

    def before_projection(self) -> BeforeProjection | None:
        """Return the image tower without its last projection; nothing where there is none.

        That of a ResNet or of timm is no single matrix at the end, or not open.
        """
        visual = self._model.visual
        if getattr(visual, "proj", None) is None or hasattr(visual, "trunk"):
            return None
        return BeforeProjection(self, visual)

    def prompt_tower(self) -> PromptTower | None:
        """Return the text tower open for learned contexts, or nothing where it is not causal."""
        return PromptTower(self._model, self._tokenizer) if _is_causal(self._model) else None

    def fast(self) -> AbstractContextManager[Any]:
        """Return the context in which the towers run in their precision."""
        wanted = self._dtype != torch.float32
        return torch.autocast(self.device.type, dtype=self._dtype, enabled=wanted)


def _is_causal(model: Any) -> bool:
    from open_clip import CLIP

    standard = type(model) is CLIP and model.text_pool_type == "argmax"
    return standard and model.attn_mask is not None


def _cut_padding(tokens: torch.Tensor) -> torch.Tensor:
    """Cut tokens (n, context) to the longest text (n, l), while they are on the host.

    A causal tower that reads the end token never looks at what follows it, so the padding after
    the longest text of the batch (77 tokens hold few real ones) is not computed.
    """
    return tokens[:, : int(tokens.argmax(1).max()) + 1]  # the end token has the highest number


def _encode_tokens(model: Any, tokens: torch.Tensor) -> torch.Tensor:
    """Encode (n, l) tokens to (n, d)."""
    if not _is_causal(model):
        return model.encode_text(tokens)
    return encode_embedded(model, model.token_embedding(tokens), tokens.argmax(1))


@contextmanager
def _without_warnings() -> Iterator[None]:
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def _create(source: ClipSource) -> Any:
    import open_clip

    try:
        return open_clip.create_model(
            source.architecture,
            load_weights=False,
            pretrained_text=False,
            force_preprocess_cfg=source.preprocess,
            force_context_length=source.context_length,
        )
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"The model {source.id} cannot be built: {reason}.",
            "Is its configuration one of open_clip's, and is a text model that it names here?",
        ) from error


def _tokenizer(source: ClipSource) -> Any:
    import open_clip

    try:
        return open_clip.get_tokenizer(source.tokenizer, context_length=source.context_length)
    except (OSError, ValueError) as error:
        raise UserError(
            f"The tokenizer of {source.id} is not on this machine.",
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
