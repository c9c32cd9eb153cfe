"""open_clip models as encoders, on small models with random weights (nothing is downloaded)."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from aape.pipeline.encoders import load_encoder
from aape.pipeline.encoders.clip import ClipEncoder
from aape.pipeline.errors import UserError

VISION = {
    "Random-ViT": {"image_size": 64, "layers": 2, "width": 64, "patch_size": 16},
    "Random-RN": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 16, "patch_size": None},
}
TEXT = {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2}
TEXTS = ["a dog", "a photo of the old harbour at night, with boats.", "!", "a dog " * 60]


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Checkpoints of random weights for architectures named Random-…"""
    folder = tmp_path_factory.mktemp("models")
    for name, vision in VISION.items():
        for suffix in ("", "-quickgelu"):
            config = {"embed_dim": 32, "vision_cfg": vision, "text_cfg": TEXT}
            config["quick_gelu"] = bool(suffix)
            (folder / f"{name}{suffix}.json").write_text(json.dumps(config))
    open_clip.add_model_config(folder)
    files = {}
    for name in VISION:
        torch.manual_seed(0)
        files[name] = folder / f"{name}.safetensors"
        save_file(open_clip.create_model(name).state_dict(), files[name])
    return files


def picture() -> Image.Image:
    noise = np.random.default_rng(0).integers(0, 255, (90, 70, 3), dtype=np.uint8)
    return Image.fromarray(noise)


@pytest.mark.parametrize("name", VISION)
def test_features_equal_a_bare_open_clip_loop(name: str, checkpoints: dict[str, Path]) -> None:
    encoder = load_encoder(name, str(checkpoints[name]), "cpu", "float32")
    bare, _, transform = open_clip.create_model_and_transforms(
        name, pretrained=str(checkpoints[name])
    )
    bare.eval()
    pixels = transform(picture())[None]
    assert torch.equal(encoder.transform(picture())[None], pixels)
    with torch.inference_mode():
        images = bare.encode_image(pixels, normalize=True)
        texts = bare.encode_text(open_clip.get_tokenizer(name)(TEXTS), normalize=True)
    torch.testing.assert_close(encoder.encode_images(pixels), images, atol=1e-5, rtol=0)
    np.testing.assert_allclose(encoder.encode_text(TEXTS), texts.numpy(), atol=1e-5)


@pytest.mark.parametrize(
    ("name", "count", "width"), [("Random-ViT", 16, 64), ("Random-RN", 4, 512)]
)
def test_tokens_are_spatial(
    name: str, count: int, width: int, checkpoints: dict[str, Path]
) -> None:
    encoder = load_encoder(name, str(checkpoints[name]), "cpu", "float32")
    pixels = torch.randn(2, 3, 64, 64)
    features, tokens = encoder.encode_images_and_tokens(pixels)
    assert tokens.shape == (2, count, width)
    assert encoder.token_dim == width
    torch.testing.assert_close(features, encoder.encode_images(pixels))
    torch.testing.assert_close(tokens, encoder.image_tokens(pixels))
    # a change in the lower right corner moves the last token most
    pixels[:, :, 48:, 48:] += 10
    moved = (encoder.image_tokens(pixels) - tokens).norm(dim=2)
    assert (moved.argmax(1) == count - 1).all()


def test_tokens_are_counted_before_truncation(checkpoints: dict[str, Path]) -> None:
    encoder = load_encoder("Random-ViT", str(checkpoints["Random-ViT"]), "cpu")
    assert encoder.count_tokens(["a dog", "", "a dog " * 60]) == [4, 2, 122]
    assert encoder.context_length == 77


def test_openai_weights_get_quickgelu(
    checkpoints: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr("aape.pipeline.encoders.clip_sources.step", said.append)
    encoder = ClipEncoder("Random-ViT/openai", str(checkpoints["Random-ViT"]), "cpu")
    assert encoder.id == "Random-ViT-quickgelu/openai"
    assert len(said) == 1
    assert "QuickGELU" in said[0]


def test_weights_without_quickgelu_refuse_the_quickgelu_name() -> None:
    with pytest.raises(UserError, match=r"without QuickGELU.*ViT-B-32/laion2b_s34b_b79k"):
        ClipEncoder("ViT-B-32-quickgelu/laion2b_s34b_b79k", __file__, "cpu")


def test_fingerprint_follows_the_weights(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    one = load_encoder("Random-ViT", str(checkpoints["Random-ViT"]), "cpu")
    torch.manual_seed(1)
    other = tmp_path / "Random-ViT.safetensors"
    save_file(open_clip.create_model("Random-ViT").state_dict(), other)
    two = load_encoder("Random-ViT", str(other), "cpu")
    assert one.id == two.id
    assert one.fingerprint != two.fingerprint
    torch.save(open_clip.create_model("Random-ViT").state_dict(), tmp_path / "plain.pt")
    assert load_encoder("Random-ViT", str(tmp_path / "plain.pt"), "cpu").dim == 32


def test_wrong_weights_are_named(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not hold the weights of Random-RN"):
        load_encoder("Random-RN", str(checkpoints["Random-ViT"]), "cpu")
    broken = tmp_path / "broken.pt"
    broken.write_bytes(b"not weights")
    with pytest.raises(UserError, match="does not hold the weights"):
        load_encoder("Random-ViT", str(broken), "cpu")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ViT-B-23", "Unknown encoder 'ViT-B-23'.*Did you mean"),
        ("lit", "Did you mean 'lite'"),
        ("ViT-B-16/open", "Unknown weights 'open'.*openai"),
        ("ViT-B-16", "No weights are named.*openai"),
    ],
)
def test_unknown_names_get_the_nearest(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_encoder(name)


def test_absent_weights_say_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(UserError, match=r"not on this machine.*--checkpoint"):
        load_encoder("ViT-L-14-quickgelu/openai")
    with pytest.raises(UserError, match=r"checkpoint .* does not exist"):
        load_encoder("ViT-B-16", str(tmp_path / "absent.pt"))


def test_auto_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AAPE_ENCODER", "ViT-B-61/nowhere")
    with pytest.raises(UserError, match="ViT-B-61"):
        load_encoder("auto")
