"""Folders of transformers as encoders: the library's own features, on small random weights."""

from __future__ import annotations

import contextlib
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from encoder_folders import (
    FAMILIES,
    TEXTS,
    assert_equal_features,
    picture,
    save_clip,
    word_tokenizer,
)
from safetensors.torch import load_file, save_file

from aape.pipeline.encoders import load_encoder
from aape.pipeline.encoders.base import unit
from aape.pipeline.errors import UserError

# how each model's own card pads its texts
PADDING: dict[str, dict[str, Any]] = {
    "clip": {"padding": True, "max_length": 77},
    "siglip": {"padding": "max_length", "max_length": 64},
    "siglip2": {"padding": "max_length", "max_length": 64},
    "align": {"padding": "max_length", "max_length": 64},
    "dual": {"padding": True, "max_length": 40},
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    return {name: save(root / name) for name, save in FAMILIES.items()}


def library_features(folder: Path, family: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Features by the library alone, in its own words."""
    model = transformers.AutoModel.from_pretrained(folder).eval()
    texts = transformers.AutoTokenizer.from_pretrained(folder)(
        TEXTS, truncation=True, return_tensors="pt", **PADDING[family]
    )
    photos = transformers.AutoImageProcessor.from_pretrained(folder)(
        images=[picture(), picture(120, 40)], return_tensors="pt"
    )
    with torch.inference_mode():
        text, image = model.get_text_features(**texts), model.get_image_features(**photos)
    return unit(getattr(text, "pooler_output", text)), unit(getattr(image, "pooler_output", image))


@pytest.mark.parametrize("family", FAMILIES)
def test_features_equal_the_librarys_own(family: str, folders: dict[str, Path]) -> None:
    encoder = load_encoder(str(folders[family]), device="cpu", precision="float32")
    texts, images = library_features(folders[family], family)
    transform = pickle.loads(pickle.dumps(encoder.transform))
    pixels = torch.stack([transform(picture()), transform(picture(120, 40))])
    assert_equal_features(f"{family}, texts", encoder.encode_text(TEXTS), texts)
    # without the long one, padding is cut
    assert_equal_features(f"{family}, short texts", encoder.encode_text(TEXTS[:3]), texts[:3])
    found, tokens = encoder.encode_images_and_tokens(pixels)
    assert_equal_features(f"{family}, images with tokens", found, images)
    assert_equal_features(f"{family}, images", encoder.encode_images(pixels), images)
    assert encoder.dim == texts.shape[1]
    assert tokens.shape[2] == encoder.token_dim
    assert abs(float(texts[0] @ texts[1])) < 0.9999  # the towers tell texts apart
    assert encoder.augment(picture()).shape == pixels[0].shape


def test_scale_and_bias_are_those_of_the_models_logits(folders: dict[str, Path]) -> None:
    found = {name: load_encoder(str(folders[name]), device="cpu") for name in ("siglip", "align")}
    assert found["siglip"].logit_scale == pytest.approx(np.exp(4.7), rel=1e-5)
    assert found["siglip"].logit_bias == -12
    assert found["align"].logit_scale == pytest.approx(20)
    assert found["align"].logit_bias == 0
    folder = folders["siglip"]
    model = transformers.AutoModel.from_pretrained(folder)
    encoder = load_encoder(str(folder), device="cpu", precision="float32")
    inputs = transformers.AutoTokenizer.from_pretrained(folder)(
        ["a dog", "night"], padding="max_length", max_length=64, return_tensors="pt"
    )
    pixels = encoder.transform(picture())[None]
    logits = model(**inputs, pixel_values=pixels).logits_per_image[0].detach().numpy()
    cosines = encoder.encode_text(["a dog", "night"]) @ encoder.encode_images(pixels)[0].numpy()
    np.testing.assert_allclose(
        cosines * encoder.logit_scale + encoder.logit_bias, logits, atol=1e-4
    )


def test_spatial_tokens_leave_the_class_token_out(folders: dict[str, Path]) -> None:
    for family in ("clip", "siglip"):
        encoder = load_encoder(str(folders[family]), device="cpu", precision="float32")
        pixels = torch.randn(1, 3, 32, 32)
        tokens = encoder.image_tokens(pixels)
        assert tokens.shape == (1, 16, 32)
        pixels[:, :, 24:, 24:] += 10
        moved = (encoder.image_tokens(pixels) - tokens).norm(dim=2)
        assert int(moved.argmax()) == 15


def test_the_length_is_the_models_own(tmp_path: Path) -> None:
    """Long-CLIP's tokenizer still says 77; its positions are 248."""
    encoder = load_encoder(str(save_clip(tmp_path / "long", 248)), device="cpu")
    assert encoder.context_length == 248
    start = "a dog " * 30
    one, two = encoder.encode_text([start + "harbour", start + "boats"])
    assert encoder.count_tokens([start]) > [77]
    assert np.abs(one - two).max() > 1e-3


def test_fingerprints_follow_weights_preprocessing_and_tokenizer(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    seen = [load_encoder(str(folders["clip"]), device="cpu").fingerprint]
    again = save_clip(tmp_path / "clip")
    assert load_encoder(f"transformers:{again}", device="cpu").fingerprint == seen[0]
    state = load_file(again / "model.safetensors")
    state["visual_projection.weight"][0, 0] += 1e-3
    save_file(state, again / "model.safetensors", {"format": "pt"})
    seen.append(load_encoder(str(again), device="cpu").fingerprint)
    settings = json.loads((again / "preprocessor_config.json").read_text())
    (again / "preprocessor_config.json").write_text(
        json.dumps({**settings, "image_mean": [0, 0, 0]})
    )
    encoder = load_encoder(str(again), device="cpu")
    seen.append(encoder.fingerprint)
    assert encoder.preprocessing != load_encoder(str(folders["clip"]), device="cpu").preprocessing
    words = json.loads((again / "tokenizer_config.json").read_text())
    (again / "tokenizer_config.json").write_text(json.dumps({**words, "model_max_length": 5}))
    seen.append(load_encoder(str(again), device="cpu").fingerprint)
    assert len(set(seen)) == 4


def test_a_bank_finds_its_encoder_again_by_name_and_folder(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    first = load_encoder(str(folders["clip"]), device="cpu")
    assert first.id == "transformers:clip"
    moved = folders["clip"].rename(tmp_path / "elsewhere")
    try:
        again = load_encoder(first.id, checkpoint=str(moved), device="cpu")
        assert again.fingerprint == first.fingerprint
        with pytest.raises(UserError, match=r"no folder on this machine.*--checkpoint"):
            load_encoder(first.id)
    finally:
        moved.rename(folders["clip"])


def test_code_of_a_folder_is_never_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr("builtins.input", lambda text="": asked.append(text) or "y")
    folder = save_clip(tmp_path / "clip")
    trap = tmp_path / "ran"
    (folder / "modeling_own.py").write_text(f"open({str(trap)!r}, 'w')\nclass Own: pass\n")
    config = json.loads((folder / "config.json").read_text())
    own = {"auto_map": {"AutoModel": "modeling_own.Own", "AutoConfig": "modeling_own.Own"}}
    (folder / "config.json").write_text(json.dumps({**config, **own, "model_type": "own_clip"}))
    with pytest.raises(UserError, match="code of its own, which is never run"):
        load_encoder(str(folder))
    (folder / "config.json").write_text(json.dumps({**config, **own}))
    assert load_encoder(str(folder), device="cpu").dim == 24  # transformers' own class instead
    for name, key in (
        ("tokenizer_config", "AutoTokenizer"),
        ("preprocessor_config", "AutoImageProcessor"),
    ):
        path = folder / f"{name}.json"
        values = json.loads(path.read_text())
        trick = {"auto_map": {key: "modeling_own.Own"}, "tokenizer_class": "Own",
                 "image_processor_type": "Own"}  # fmt: skip
        path.write_text(json.dumps({**values, **trick}))
        with contextlib.suppress(UserError):
            load_encoder(str(folder), device="cpu")
        path.write_text(json.dumps(values))
    assert not asked
    assert not trap.exists()


def test_what_is_no_dual_encoder_is_said(tmp_path: Path) -> None:
    config = transformers.BertConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=2,
        vocab_size=40,
    )  # fmt: skip
    transformers.BertModel(config).save_pretrained(tmp_path / "bert")
    word_tokenizer().save_pretrained(tmp_path / "bert")
    transformers.CLIPImageProcessor().save_pretrained(tmp_path / "bert")
    with pytest.raises(UserError, match="no dual encoder"):
        load_encoder(str(tmp_path / "bert"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no model"):
        load_encoder(str(tmp_path / "empty"))
    (tmp_path / "empty" / "config.json").write_text("[]")
    with pytest.raises(UserError, match="does not describe a model"):
        load_encoder(str(tmp_path / "empty"))
    clip = save_clip(tmp_path / "clip")
    (clip / "preprocessor_config.json").unlink(missing_ok=True)
    (clip / "processor_config.json").unlink(missing_ok=True)
    with pytest.raises(UserError, match=r"cannot be loaded.*preprocessor_config"):
        load_encoder(str(clip))


@pytest.mark.parametrize("layout", ["0_CLIPModel", "0_CLIPModel/0_CLIPModel", ""])
def test_sentence_transformers_folders(layout: str, tmp_path: Path) -> None:
    """Where the files lay in its versions: below the module's folder, twice below, and on top."""
    folder = tmp_path / "clip-st"
    save_clip(folder / layout)
    path = layout.partition("/")[0]
    module = {"idx": 0, "name": "0", "path": path, "type": "sentence_transformers.models.CLIPModel"}
    (folder / "modules.json").write_text(json.dumps([module]))
    bare = load_encoder(str(folder / layout) if layout else f"transformers:{folder}", device="cpu")
    encoder = load_encoder(str(folder), device="cpu")
    assert encoder.weights_hash == bare.weights_hash
    dense = {**module, "path": "1_Dense", "type": "sentence_transformers.models.Dense"}
    (folder / "modules.json").write_text(json.dumps([module, dense]))
    with pytest.raises(UserError, match="puts the layer 'Dense' behind"):
        load_encoder(str(folder))
    (folder / "modules.json").write_text(json.dumps([{**module, "path": "../../.."}]))
    with pytest.raises(UserError, match="leads out of its folder"):
        load_encoder(str(folder))


def test_sentence_transformers_own_features(tmp_path: Path) -> None:
    library = pytest.importorskip("sentence_transformers")
    inner = save_clip(tmp_path / "clip")
    saved = tmp_path / "saved"
    opened = library.SentenceTransformer(str(inner), device="cpu")
    opened.save(str(saved))
    encoder = load_encoder(str(saved), device="cpu", precision="float32")
    texts = unit(torch.tensor(opened.encode(TEXTS[:3])))
    assert_equal_features("sentence-transformers, texts", encoder.encode_text(TEXTS[:3]), texts)
    images = unit(torch.tensor(opened.encode([picture()])))
    found = encoder.encode_images(encoder.transform(picture())[None])
    assert_equal_features("sentence-transformers, images", found, images)


def test_a_model_of_a_hub_comes_from_the_cache(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    from huggingface_hub import constants

    cache = tmp_path / "hub"
    place = cache / "models--somebody--birds"
    shutil.copytree(folders["clip"], place / "snapshots" / ("a" * 40))
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text("a" * 40)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr("huggingface_hub._snapshot_download.constants.HF_HUB_CACHE", str(cache))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    encoder = load_encoder("transformers:somebody/birds", device="cpu")
    assert encoder.id == "transformers:somebody/birds"
    assert load_encoder("hf-hub:somebody/birds", device="cpu").weights_hash == encoder.weights_hash
    with pytest.raises(UserError, match=r"somebody/fish is not on this machine"):
        load_encoder("hf-hub:somebody/fish")
