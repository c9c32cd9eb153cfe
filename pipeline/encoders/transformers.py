"""A folder of transformers as an encoder: CLIP, SigLIP, SigLIP 2, ALIGN and their relatives.

Any model will do that has ``get_image_features`` and ``get_text_features`` of one width. Code of
the model's own folder is never run.

b images, n texts, t tokens of an image, e their width, d width of the joint space.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..errors import UserError
from ..files import hash_value, read_json
from .base import ImageTransform, fast_dtype, fingerprint, hash_weights_file, pick_device, unit
from .processors import (
    ProcessorAugmentation,
    ProcessorTransform,
    describe,
    unpack,
    view_size,
)

# How the text side was trained, by model type: padded to a fixed length, without looking away from
# the padding (SigLIP) or with it (ALIGN, whose BERT could read 512).
_PADDED = ("siglip", "siglip2", "align")
_TRAINED_LENGTH = {"align": 64, "siglip2": 64, "chinese_clip": 52}
_OFFSET_POSITIONS = ("xlm-roberta", "roberta", "camembert", "altclip_text_model")
_DECIDING = (
    "config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "tokenizer*",
    "vocab*",
    "merges.txt",
    "special_tokens_map.json",
    "added_tokens.json",
    "*.model",
)  # fmt: skip


class TransformersEncoder:
    """A dual encoder of transformers; see :class:`.base.Encoder` for what the methods return.

    Args:
        folder: where ``config.json``, weights, tokenizer and image processor are.
        id: the name the encoder goes by.
        device: ``auto``, ``cpu``, ``cuda``, ``mps`` …
        precision: ``auto`` (bfloat16 where the hardware multiplies it), ``float32``, ``bfloat16``.

    Raises:
        UserError: the folder is incomplete, asks for code of its own, or is no dual encoder.
    """

    notes = ""

    def __init__(
        self, folder: Path, id: str, device: str = "auto", precision: str = "auto"
    ) -> None:
        self.id = id
        self.device = pick_device(device)
        self._dtype = fast_dtype(self.device) if precision == "auto" else getattr(torch, precision)
        self.precision = str(self._dtype).removeprefix("torch.")
        model, self._tokenizer, processor = _load(folder)
        self.weights_hash = _hash_folder(folder)
        self._model = model.to(self.device)
        config = model.config
        self._kind = str(config.model_type)
        self.context_length = _context_length(config, self._tokenizer)
        self.logit_scale, self.logit_bias = _scale_and_bias(model)
        self.transform: ImageTransform = ProcessorTransform(processor)
        height, width = view_size(processor, getattr(config, "vision_config", config))
        self.augment: ImageTransform = ProcessorAugmentation(processor, height, width)
        self.preprocessing = describe(processor)
        self.dim, self.token_dim = self._widths(folder)

    @property
    def fingerprint(self) -> str:
        """Id, and a hash of weights, configuration, preprocessing and tokenizer."""
        return fingerprint(self.id, self.weights_hash)

    @torch.inference_mode()
    def encode_text(self, texts: Sequence[str]) -> np.ndarray:
        """Encode one batch: (n,) texts to (n, d)."""
        if not len(texts):
            return np.zeros((0, self.dim), np.float32)
        tokens = self._tokenizer(
            list(texts),
            padding="max_length" if self._kind in _PADDED else True,
            truncation=True,
            max_length=self.context_length,
            return_tensors="pt",
        ).to(self.device)
        with self._fast():
            return unit(_pooled(self._model.get_text_features(**tokens))).cpu().numpy()

    @torch.inference_mode()
    def encode_images(self, pixels: torch.Tensor) -> torch.Tensor:
        """Encode one batch of what ``transform`` returns: to (b, d)."""
        with self._fast():
            return unit(_pooled(self._model.get_image_features(**unpack(pixels.to(self.device)))))

    @torch.inference_mode()
    def image_tokens(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return the spatial features before pooling: (b, t, e)."""
        return self.encode_images_and_tokens(pixels)[1]

    @torch.inference_mode()
    def encode_images_and_tokens(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return features (b, d) and tokens (b, t, e) in one pass."""
        seen: list[Any] = []
        tower = getattr(self._model, "vision_model", None) or self._model.image_model
        hook = tower.register_forward_hook(lambda module, inputs, output: seen.append(output))
        try:
            with self._fast():
                output = self._model.get_image_features(**unpack(pixels.to(self.device)))
        finally:
            hook.remove()
        return unit(_pooled(output)), _spatial(seen[-1]).float()

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Count the tokens of each text with start and end, before truncation."""
        if not len(texts):
            return []
        return [len(row) for row in self._tokenizer(list(texts), verbose=False)["input_ids"]]

    def prompt_tower(self) -> None:
        """Return nothing: contexts are learned in open_clip's text towers only."""

    def _fast(self) -> AbstractContextManager[Any]:
        wanted = self._dtype != torch.float32
        return torch.autocast(self.device.type, dtype=self._dtype, enabled=wanted)

    def _widths(self, folder: Path) -> tuple[int, int]:
        """Try the model on one grey photo and one word: width of the space and of the tokens."""
        from PIL import Image

        try:
            pixels = self.transform(Image.new("RGB", (64, 64), "grey"))[None]
            image, tokens = self.encode_images_and_tokens(pixels)
            text = self._tokenizer(["photo"], return_tensors="pt").to(self.device)
            with torch.inference_mode(), self._fast():
                width = _pooled(self._model.get_text_features(**text)).shape
        except Exception as error:
            raise UserError(
                f"The model in {folder} does not read a photo and a word: {_short(error)}.",
                "Is it a model of single photos and texts, with its own tokenizer?",
            ) from error
        if len(width) != 2 or image.ndim != 2 or width[1] != image.shape[1]:
            raise UserError(
                f"The model in {folder} does not put texts and photos into one space "
                f"({tuple(width)} and {tuple(image.shape)}).",
                "A dual encoder such as CLIP, SigLIP or ALIGN is needed.",
            )
        return int(image.shape[1]), int(tokens.shape[2])


def _load(folder: Path) -> tuple[Any, Any, Any]:
    """Return model, tokenizer and image processor, in float32, without code of the folder."""
    import transformers

    config = read_json(folder / "config.json")
    if not isinstance(config, dict) or not config.get("model_type"):
        raise UserError(f"{folder / 'config.json'} does not describe a model of transformers.")
    if config.get("auto_map") and config["model_type"] not in transformers.CONFIG_MAPPING:
        raise UserError(
            f"The model in {folder} needs code of its own, which is never run.",
            "Use a model that transformers itself knows.",
        )
    transformers.logging.disable_progress_bar()
    options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    try:
        model: Any = transformers.AutoModel.from_pretrained(folder, **options)
        tokenizer: Any = transformers.AutoTokenizer.from_pretrained(folder, **options)
        processor: Any = transformers.AutoImageProcessor.from_pretrained(folder, **options)
    except Exception as error:
        raise UserError(
            f"The model in {folder} cannot be loaded: {_short(error)}.",
            "Needed: config.json, weights, tokenizer and preprocessor_config.json as transformers "
            "saves them.",
        ) from error
    lacks = [n for n in ("get_image_features", "get_text_features") if not hasattr(model, n)]
    if lacks:
        raise UserError(
            f"The model in {folder} ({config['model_type']}) is no dual encoder: it has no "
            f"{lacks[0]}.",
            "A model such as CLIP, SigLIP or ALIGN is needed.",
        )
    return model.float().eval(), tokenizer, processor


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:200].rstrip(".")


def _hash_folder(folder: Path) -> str:
    """Hash weights, configuration, tokenizer and processor by content."""
    weights = sorted(folder.glob("*.safetensors")) or sorted(folder.glob("pytorch_model*.bin"))
    files = sorted({path for pattern in _DECIDING for path in folder.glob(pattern)})
    return hash_value(
        {path.name: hash_weights_file(path) for path in (*weights, *files) if path.is_file()}
    )


def _context_length(config: Any, tokenizer: Any) -> int:
    """Return how many tokens of a text are read, start and end included.

    The model's own configuration decides (Long-CLIP has 248), not the tokenizer's memory of the
    model it was copied from; models trained on less than they could read keep to that.
    """
    text = getattr(config, "text_config", config)
    positions = int(getattr(text, "max_position_embeddings", 0) or 0)
    if getattr(text, "model_type", "") in _OFFSET_POSITIONS:
        positions -= int(text.pad_token_id) + 1  # their numbering begins behind the padding
    if not positions:
        positions = min(int(tokenizer.model_max_length), 512)
    return min(positions, _TRAINED_LENGTH.get(config.model_type, positions))


def _scale_and_bias(model: Any) -> tuple[float, float]:
    """Return what cosines are multiplied by in the model's own logits, and what is added."""
    scale = getattr(model, "logit_scale", None)
    bias = getattr(model, "logit_bias", None)
    heat = getattr(model, "temperature", None)  # ALIGN divides by it
    if scale is not None:
        factor = float(scale.detach().exp())
    else:
        factor = 1 / float(heat.detach()) if heat is not None else 100.0  # CLIP's limit
    return factor, 0.0 if bias is None else float(bias.detach())


def _pooled(output: Any) -> torch.Tensor:
    """Return the features, which transformers 5 wraps with what they were pooled from."""
    return output if isinstance(output, torch.Tensor) else output.pooler_output


def _spatial(output: Any) -> torch.Tensor:
    """Return the tokens of a vision tower without what stands before the patches: (b, t, e)."""
    states = (
        output["last_hidden_state"]
        if isinstance(output, Mapping)
        else getattr(output, "last_hidden_state", output[0])
    )
    if states.ndim == 4:  # a convolutional tower
        return states.flatten(2).transpose(1, 2)
    count = states.shape[1]
    return states[:, 1:] if round((count - 1) ** 0.5) ** 2 == count - 1 and count > 1 else states
