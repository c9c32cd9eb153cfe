"""Models of the real classes with random weights: ViT-B/16 of open_clip, and a small Llama.

Nothing they say means anything. Architecture, files, tokenizers and code paths are the real ones.
"""

from __future__ import annotations

from pathlib import Path

ARCHITECTURE = "ViT-B-16-quickgelu"
_SHAPES = ("round", "long", "striped", "bright", "wide", "grey", "spotted", "narrow")
_PARTS = ("ears", "wings", "windows", "leaves", "stairs", "wheels", "edges", "colours")
_TEMPLATE = (
    "{% for message in messages %}"
    "<{{ message['role'] }}> {{ message['content'] }} </s> "
    "{% endfor %}{% if add_generation_prompt %}<assistant> {% endif %}"
)


def write_clip(path: Path, architecture: str = ARCHITECTURE) -> Path:
    """Write the weights of a freshly made model of open_clip as safetensors, unless it is there."""
    if path.exists():
        return path
    import logging

    import open_clip
    import torch
    from safetensors.torch import save_file

    logging.disable(logging.WARNING)  # that there are no weights: here they are made
    torch.manual_seed(0)
    model = open_clip.create_model(architecture)
    logging.disable(logging.NOTSET)
    path.parent.mkdir(parents=True, exist_ok=True)
    state = {name: value.contiguous() for name, value in model.state_dict().items()}
    save_file(state, path, metadata={"format": "pt"})
    return path


SHRUNK = "ViT-B-16-shrunk"


def write_shrunk_clip(folder: Path) -> Path:
    """Write a folder of open_clip's with the towers of ViT-B/16 at two layers of width 64.

    Tokenizer, activation, files and code are the same; the whole suite then takes a slow machine
    minutes. The name has the published figures printed beside it, as for the real one.
    """
    if (folder / "open_clip_config.json").exists():
        return folder
    import json

    import open_clip
    import torch
    from safetensors.torch import save_file

    small = {
        "embed_dim": 32,
        "quick_gelu": True,
        "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "head_width": 32,
                       "patch_size": 16},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 2,
                     "layers": 2},
    }  # fmt: skip
    preprocess = {"mean": [0.48145466, 0.4578275, 0.40821073],
                  "std": [0.26862954, 0.26130258, 0.27577711]}  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    model = open_clip.CLIP(**small)
    state = {name: value.contiguous() for name, value in model.state_dict().items()}
    save_file(state, folder / "open_clip_model.safetensors", metadata={"format": "pt"})
    content = json.dumps({"model_cfg": small, "preprocess_cfg": preprocess})
    (folder / "open_clip_config.json").write_text(content, encoding="utf-8")
    return folder


def write_language_model(folder: Path) -> Path:
    """Write a Llama of two layers, as ``save_pretrained`` does. Its words are whole sentences.

    They pass the verdicts, and being 64 they make few texts, which a slow encoder can embed.
    """
    if (folder / "config.json").exists():
        return folder
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    special = ["<unk>", "<s>", "</s>"]
    sentences = [f"It has {shape} {part} in soft light." for shape in _SHAPES for part in _PARTS]
    words = [*special, *sentences]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, "<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        pad_token="</s>",
        chat_template=_TEMPLATE,
    )
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(words), hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=256,
        bos_token_id=1, eos_token_id=2, pad_token_id=2, tie_word_embeddings=False,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    model.generation_config.suppress_tokens = [0, 1, 2]  # an empty answer is no prompt
    model.save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder
