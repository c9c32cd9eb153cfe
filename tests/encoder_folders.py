"""Small models with random weights, saved by the libraries' own classes as people save theirs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from PIL import Image

SIDE = 32
WORDS = [
    "a",
    "dog",
    "photo",
    "of",
    "the",
    "old",
    "harbour",
    "at",
    "night",
    "with",
    "boats",
    ".",
    "!",
]
TEXTS = ["a dog", "a photo of the old harbour at night, with boats.", "!", "a dog " * 60]
SMALL = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
HEADS = {**SMALL, "num_attention_heads": 4}
MEAN, STD = [0.4, 0.5, 0.6], [0.2, 0.3, 0.25]


def assert_equal_features(what: str, found: Any, wanted: Any, most: float = 1e-5) -> None:
    """Compare features with the library's own; ``pytest -rP`` shows the largest difference."""
    found, wanted = np.asarray(found), np.asarray(wanted)
    assert found.shape == wanted.shape
    largest = float(np.abs(found - wanted).max())
    print(f"{what}: largest difference {largest:.1e}")
    assert largest <= most


def picture(width: int = 70, height: int = 90) -> Image.Image:
    noise = np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(noise)


def clip_tokenizer(length: int = 77) -> Any:
    from tokenizers.pre_tokenizers import ByteLevel

    letters = sorted(ByteLevel.alphabet())
    pieces = [
        *letters,
        *(f"{letter}</w>" for letter in letters),
        "<|startoftext|>",
        "<|endoftext|>",
    ]
    vocab = {piece: number for number, piece in enumerate(pieces)}
    return transformers.CLIPTokenizer(vocab=vocab, merges=[], model_max_length=length)


def word_tokenizer(**options: Any) -> Any:
    """A tokenizer of whole words that ends a text with </s>, as SigLIP's does."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    pieces = ["<pad>", "</s>", "<unk>", *WORDS]
    model = models.WordLevel({piece: n for n, piece in enumerate(pieces)}, unk_token="<unk>")
    inner = Tokenizer(model)
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    inner.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", **options
    )


def bert_tokenizer() -> Any:
    vocab = {p: n for n, p in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS])}
    return transformers.BertTokenizer(vocab=vocab, model_max_length=512)


def _seeded(model: Any) -> Any:
    """Random weights large enough that nothing is nearly equal by chance."""
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1 or "class_embedding" in name:
                parameter.normal_(0, 0.15)
    return model.eval()


def save_clip(folder: Path, length: int = 77) -> Path:
    tokenizer = clip_tokenizer()
    text = {**HEADS, "vocab_size": len(tokenizer), "max_position_embeddings": length,
            "bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id}  # fmt: skip
    vision = {**HEADS, "image_size": SIDE, "patch_size": 8}
    config = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=24)
    processor = transformers.CLIPImageProcessor(
        size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE},
        image_mean=MEAN, image_std=STD,
    )  # fmt: skip
    return _save(folder, transformers.CLIPModel(config), tokenizer, processor)


def save_siglip(folder: Path) -> Path:
    text = {**HEADS, "vocab_size": 40, "max_position_embeddings": 64, "projection_size": 32,
            "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 1}  # fmt: skip
    vision = {**HEADS, "image_size": SIDE, "patch_size": 8}
    model = transformers.SiglipModel(
        transformers.SiglipConfig(text_config=text, vision_config=vision)
    )
    torch.nn.init.constant_(model.logit_scale, 4.7)
    torch.nn.init.constant_(model.logit_bias, -12.0)
    tokenizer = word_tokenizer(model_max_length=64, model_input_names=["input_ids"])
    processor = transformers.SiglipImageProcessor(size={"height": SIDE, "width": SIDE})
    return _save(folder, model, tokenizer, processor)


def save_siglip2(folder: Path) -> Path:
    text = {**HEADS, "vocab_size": 40, "max_position_embeddings": 64, "projection_size": 32,
            "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 1}  # fmt: skip
    vision = {**HEADS, "num_patches": 16, "patch_size": 8}
    model = transformers.Siglip2Model(
        transformers.Siglip2Config(text_config=text, vision_config=vision)
    )
    torch.nn.init.constant_(model.logit_scale, 4.7)
    torch.nn.init.constant_(model.logit_bias, -16.0)
    tokenizer = word_tokenizer(model_max_length=64, padding_side="right")
    processor = transformers.Siglip2ImageProcessor(patch_size=8, max_num_patches=24)
    return _save(folder, model, tokenizer, processor)


def save_align(folder: Path) -> Path:
    text = {**HEADS, "vocab_size": 40, "max_position_embeddings": 512}
    vision = {
        "image_size": 64, "width_coefficient": 0.25, "depth_coefficient": 0.2, "hidden_dim": 32,
    }  # fmt: skip
    config = transformers.AlignConfig(text_config=text, vision_config=vision, projection_dim=80)
    processor = transformers.EfficientNetImageProcessor(
        size={"height": 64, "width": 64}, do_center_crop=False, rescale_factor=1 / 127.5,
        rescale_offset=True, do_normalize=False, include_top=False,
    )  # fmt: skip
    model = transformers.AlignModel(config)
    torch.nn.init.constant_(model.temperature, 0.05)
    return _save(folder, model, bert_tokenizer(), processor)


def save_dual(folder: Path) -> Path:
    """A pair of towers that somebody put together: any model with the two methods."""
    tokenizer = bert_tokenizer()
    text = transformers.BertConfig(**HEADS, vocab_size=40, max_position_embeddings=40)
    vision = transformers.ViTConfig(**HEADS, image_size=SIDE, patch_size=8)
    config = transformers.VisionTextDualEncoderConfig.from_vision_text_configs(
        vision, text, projection_dim=24
    )
    processor = transformers.ViTImageProcessor(size={"height": SIDE, "width": SIDE})
    return _save(folder, transformers.VisionTextDualEncoderModel(config), tokenizer, processor)


def _save(folder: Path, model: Any, tokenizer: Any, processor: Any) -> Path:
    _seeded(model).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


FAMILIES = {
    "clip": save_clip,
    "siglip": save_siglip,
    "siglip2": save_siglip2,
    "align": save_align,
    "dual": save_dual,
}
