"""open_clip models as encoders, on small models with random weights (nothing is downloaded)."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from encoder_folders import assert_equal_features, word_tokenizer
from PIL import Image
from safetensors.torch import save_file

from aape.pipeline.encoders import load_encoder
from aape.pipeline.encoders.base import pick_device
from aape.pipeline.encoders.clip import ClipEncoder
from aape.pipeline.encoders.compiled import CompiledTower
from aape.pipeline.encoders.families import preprocessing
from aape.pipeline.errors import UserError
from aape.pipeline.files import hash_file

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
    assert_equal_features(f"open_clip {name}, images", encoder.encode_images(pixels), images)
    assert_equal_features(f"open_clip {name}, texts", encoder.encode_text(TEXTS), texts)
    # without the long one, padding is cut
    short = encoder.encode_text(TEXTS[:3])
    assert_equal_features(f"open_clip {name}, short texts", short, texts[:3])


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


@pytest.mark.parametrize("name", ["cuda", "cuda:1", "mps", "nosuch"])
def test_a_device_that_is_not_there_names_one_that_is(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(UserError, match="is not usable here") as caught:
        pick_device(name)
    advice = caught.value.hint
    assert "Choose the device cpu;" in advice
    assert name not in advice


def test_auto_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AAPE_ENCODER", "ViT-B-61/nowhere")
    with pytest.raises(UserError, match="ViT-B-61"):
        load_encoder("auto")


def trained(path: Path, model: torch.nn.Module) -> Path:
    """Save as open_clip's training loop does: its cosine schedule leaves a number of numpy's."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for group in optimizer.param_groups:
        group["lr"] = 0.5 * (1 + np.cos(np.pi * 0.3)) * 1e-3
    weights = {f"module.{name}": tensor for name, tensor in model.state_dict().items()}
    inside = {"epoch": 1, "name": "run", "state_dict": weights, "optimizer": optimizer.state_dict()}
    torch.save({**inside, "scaler": {"scale": 65536.0}}, path)
    return path


def test_training_checkpoints_are_read_weights_only(
    checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    plain = load_encoder("Random-ViT", str(checkpoints["Random-ViT"]), "cpu", "float32")
    model = open_clip.create_model("Random-ViT", pretrained=str(checkpoints["Random-ViT"]))
    state = model.state_dict()
    files = [trained(tmp_path / "epoch_1.pt", model)]
    others = {
        "lightning": {"state_dict": {f"model.{k}": v for k, v in state.items()}, "epoch": 3},
        "script": {"model_state_dict": state, "args": argparse.Namespace(lr=1e-3), "loss": 0.1},
        "compiled": {"model": {f"_orig_mod.module.{k}": v for k, v in state.items()}},
        "beside": {"state_dict": {**{f"net.{k}": v for k, v in state.items()},
                                  "loss.scale": torch.ones(1)}},
    }  # fmt: skip
    for name, value in others.items():
        torch.save(value, tmp_path / f"{name}.pt")
        files.append(tmp_path / f"{name}.pt")
    for file in files:
        encoder = load_encoder("Random-ViT", str(file), "cpu", "float32")
        found, wanted = encoder.encode_text(TEXTS), plain.encode_text(TEXTS)
        assert_equal_features(f"checkpoint {file.name}, texts", found, wanted, 1e-6)


class Trap:
    def __reduce__(self):
        return (Path.write_text, (Path(TRAP), "ran"))


TRAP = "trap-that-must-not-run"


def test_nothing_but_weights_comes_out_of_a_checkpoint(
    checkpoints: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": {}, "extra": Trap()}, tmp_path / "trap.pt")
    with pytest.raises(UserError, match="nothing but weights is read"):
        load_encoder("Random-ViT", str(tmp_path / "trap.pt"), "cpu")
    assert not (tmp_path / TRAP).exists()
    for value, message in (
        ({"epoch": 1}, "no weights by name"),
        ([1, 2], "no weights by name"),
        ({"a.visual.x": torch.ones(1), "b.visual.x": torch.ones(1)}, "several models: a., b."),
    ):
        torch.save(value, tmp_path / "odd.pt")
        with pytest.raises(UserError, match=message):
            load_encoder("Random-ViT", str(tmp_path / "odd.pt"), "cpu")


def test_a_checkpoint_without_a_tag_gets_its_familys_pixels() -> None:
    for name, mean, mode in (
        ("MobileCLIP-S1", (0.0, 0.0, 0.0), "bilinear"),
        ("ViT-B-16-SigLIP", (0.5, 0.5, 0.5), "bicubic"),
        ("ViT-L-14-CLIPA", (0.485, 0.456, 0.406), "bilinear"),
        ("ViT-B-32", (0.48145466, 0.4578275, 0.40821073), "bicubic"),
    ):
        found = preprocessing(name, {})
        assert found["mean"] == mean
        assert found["interpolation"] == mode
    assert preprocessing("coca_base", {}) == {}
    with pytest.raises(UserError, match=r"2 different preprocessings.*ViT-L-14/openai"):
        preprocessing("ViT-L-14", {})
    assert preprocessing("ViT-L-14", {}, openai=True)["mean"][0] == 0.48145466


def test_mobileclip_without_a_tag_equals_mobileclip_with_one(tmp_path: Path) -> None:
    torch.manual_seed(0)
    file = tmp_path / "mine.safetensors"
    save_file(open_clip.create_model("MobileCLIP-S1").state_dict(), file)
    encoder = load_encoder("MobileCLIP-S1", str(file), "cpu", "float32")
    tagged = load_encoder("MobileCLIP-S1/datacompdr", str(file), "cpu", "float32")
    assert encoder.preprocessing == tagged.preprocessing
    pixels = encoder.transform(picture())
    assert torch.equal(pixels, tagged.transform(picture()))
    assert 0 <= float(pixels.min()) <= float(pixels.max()) <= 1
    bare = open_clip.create_model("MobileCLIP-S1", pretrained=str(file)).eval()
    with torch.inference_mode():
        images = bare.encode_image(pixels[None], normalize=True)
        texts = bare.encode_text(open_clip.get_tokenizer("MobileCLIP-S1")(TEXTS), normalize=True)
    assert_equal_features("MobileCLIP-S1, images", encoder.encode_images(pixels[None]), images)
    assert_equal_features("MobileCLIP-S1, texts", encoder.encode_text(TEXTS), texts)
    assert_equal_features("MobileCLIP-S1, short texts", encoder.encode_text(TEXTS[:3]), texts[:3])
    # earlier versions read this very file with other pixels under the hash of the file alone
    assert encoder.weights_hash != hash_file(file)
    assert tagged.weights_hash == hash_file(file)


def test_long_clip_reads_its_248_tokens(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    torch.manual_seed(2)
    long = open_clip.create_model("Random-ViT-quickgelu", force_context_length=248).eval()
    state = long.state_dict()
    whole = state["positional_embedding"].clone()
    kept, stretched = torch.randn(2, 248, 64)
    kept[:20], stretched[20:] = whole[:20], whole[20:]
    file = tmp_path / "longclip-B.pt"
    torch.save({**state, "positional_embedding": kept, "positional_embedding_res": stretched}, file)
    encoder = load_encoder("Random-ViT", str(file), "cpu", "float32")
    assert encoder.context_length == 248
    assert encoder.id == "Random-ViT-quickgelu/longclip-B"
    texts = [*TEXTS, "a dog " * 110 + "at sea"]
    tokens = open_clip.get_tokenizer("Random-ViT", context_length=248)(texts)
    with torch.inference_mode():
        wanted = long.encode_text(tokens, normalize=True)
    assert_equal_features("Long-CLIP, texts", encoder.encode_text(texts), wanted)
    assert_equal_features("Long-CLIP, short texts", encoder.encode_text(texts[:3]), wanted[:3])


SIGLIP_TEXT = {
    "context_length": 16, "vocab_size": 40, "hf_tokenizer_name": "somewhere/else",
    "tokenizer_kwargs": {"clean": "canonicalize"}, "width": 32, "heads": 2, "layers": 2,
    "no_causal_mask": True, "proj_bias": True, "pool_type": "last",
}  # fmt: skip


def clip_folder(folder: Path, **changes: Any) -> Path:
    """Save a model with its own preprocessing as open_clip's push_to_hf_hub writes it."""
    folder.mkdir(parents=True)
    settings = {
        "embed_dim": 32, "init_logit_bias": -10, "custom_text": True,
        "vision_cfg": VISION["Random-ViT"], "text_cfg": {**SIGLIP_TEXT, **changes},
    }  # fmt: skip
    pixels = {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bilinear",
              "resize_mode": "squash"}  # fmt: skip
    config = {"model_cfg": settings, "preprocess_cfg": pixels}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    word_tokenizer().save_pretrained(folder)
    torch.manual_seed(4)
    model = open_clip.create_model(f"local-dir:{folder}", load_weights=False)
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    return folder


def test_a_folder_of_open_clip_equals_its_own_scheme(tmp_path: Path) -> None:
    folder = clip_folder(tmp_path / "birds")
    encoder = load_encoder(f"local-dir:{folder}", device="cpu", precision="float32")
    assert encoder.id == "local-dir:birds"
    assert load_encoder(str(folder), device="cpu").fingerprint == encoder.fingerprint
    bare, _, transform = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    bare.eval()
    texts = open_clip.get_tokenizer(f"local-dir:{folder}")(TEXTS)
    pixels = transform(picture())[None]
    assert torch.equal(encoder.transform(picture())[None], pixels)
    with torch.inference_mode():
        wanted = bare.encode_text(texts, normalize=True)
        images = bare.encode_image(pixels, normalize=True)
    assert_equal_features("open_clip's folder, texts", encoder.encode_text(TEXTS), wanted)
    short = encoder.encode_text(TEXTS[:3])
    assert_equal_features("open_clip's folder, short texts", short, wanted[:3])
    assert_equal_features("open_clip's folder, images", encoder.encode_images(pixels), images)
    assert encoder.logit_bias == -10
    assert encoder.context_length == 16
    before = encoder.fingerprint
    config = json.loads((folder / "open_clip_config.json").read_text())
    config["preprocess_cfg"]["mean"] = [0.4] * 3
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    assert load_encoder(str(folder), device="cpu").fingerprint != before


def test_a_hub_model_of_open_clip_comes_from_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    place = tmp_path / "hub" / "models--somebody--birds"
    folder = clip_folder(place / "snapshots" / ("a" * 40))
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text("a" * 40)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    encoder = load_encoder("hf-hub:somebody/birds", device="cpu", precision="float32")
    assert encoder.id == "hf-hub:somebody/birds"
    local = load_encoder(f"local-dir:{folder}", device="cpu", precision="float32")
    np.testing.assert_array_equal(encoder.encode_text(TEXTS), local.encode_text(TEXTS))


def test_a_strangers_folder_reaches_no_loader(tmp_path: Path) -> None:
    folder = clip_folder(tmp_path / "trap")
    config = json.loads((folder / "open_clip_config.json").read_text())
    config["model_cfg"]["text_cfg"]["tokenizer_kwargs"] = {"trust_remote_code": True}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="'trust_remote_code', which is not read"):
        load_encoder(str(folder))
    (folder / "open_clip_config.json").write_text("[]")
    with pytest.raises(UserError, match="does not describe a model of open_clip"):
        load_encoder(f"local-dir:{folder}")
    with pytest.raises(UserError, match=r"no open_clip_config\.json"):
        load_encoder(f"local-dir:{tmp_path}")


@pytest.mark.slow
def test_a_compiled_tower_gives_the_same_features(
    checkpoints: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Full and short batches, and those too small to be worth it; features and tokens."""
    said: list[str] = []
    monkeypatch.setattr("aape.pipeline.encoders.compiled.step", said.append)
    place = {"device": "cpu", "precision": "float32"}
    plain, compiled = (
        load_encoder("Random-ViT", str(checkpoints["Random-ViT"]), **place) for _ in range(2)
    )
    compiled.compile_images(always=True)  # pyright: ignore
    pixels = torch.randn(21, *plain.transform(picture()).shape)
    for rows in (pixels[:4], pixels[:16], pixels[16:], pixels[5:15], pixels):
        x, tokens = compiled.encode_images_and_tokens(rows)
        wanted, wanted_tokens = plain.encode_images_and_tokens(rows)
        torch.testing.assert_close(x, wanted, atol=1e-4, rtol=0)
        torch.testing.assert_close(tokens, wanted_tokens, atol=1e-4, rtol=0)
        torch.testing.assert_close(compiled.encode_images(rows), wanted, atol=1e-4, rtol=0)
    assert len(said) == 1, said
    assert "runs compiled" in said[0]


def test_where_nothing_compiles_the_tower_runs_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr("aape.pipeline.encoders.compiled.step", said.append)

    def broken(read: Any, dynamic: bool) -> Any:
        raise_ = RuntimeError("no compiler")

        def compiled(pixels: torch.Tensor) -> Any:
            raise raise_

        return compiled

    monkeypatch.setattr(torch, "compile", broken)
    tower = CompiledTower(lambda pixels: (pixels.sum((1, 2, 3)),))
    pixels = torch.randn(16, 3, 2, 2)
    for _ in range(2):
        torch.testing.assert_close(tower(pixels)[0], pixels.sum((1, 2, 3)))
    assert said == ["The image tower cannot be compiled here and runs as it is: no compiler"]
