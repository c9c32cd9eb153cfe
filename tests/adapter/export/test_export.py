"""What is exported says what the run says: ONNX, torch.export, a folder, without torch too."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from fakes import PixelEncoder, unit
from PIL import Image
from places import REPOSITORY
from small_runs import NAMES, random_photo, small_run

from aape.adapter.export import export
from aape.adapter.export.card import cell
from aape.adapter.export.folded import FoldedAdapter
from aape.adapter.method.adapter import FittedAdapter
from aape.adapter.method.discriminant import Discriminant
from aape.adapter.method.model import Adapter
from aape.adapter.method.problem import ClassSet
from aape.adapter.method.query import Query
from aape.adapter.method.recipe import Recipe
from aape.adapter.method.terms import AdaptedHead, AsQuery, Gaussian, Residual, ZeroShot
from aape.adapter.open_model import open_model
from aape.adapter.predict import predict
from aape.pipeline.errors import UserError


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AAPE_HOME", str(tmp_path / "home"))
    return tmp_path


def randomised(adapter: Adapter, seed: int) -> Adapter:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return adapter.eval()


def every_term(kind: str, residual: str, d: int = 16, s: int = 5) -> FittedAdapter:
    """An adapter with random values in the terms that gradient training makes."""
    text = unit(s, d, seed=1)
    recipe = Recipe(kind="trained", generator=residual, head=residual, width=8, rank=6)  # type: ignore[arg-type]
    if kind == "no groups":
        recipe = recipe.model_copy(update={"zero_shot_groups": False})
    adapter = randomised(Adapter(recipe, torch.zeros(d), text, 20.0), 2)
    random = torch.Generator().manual_seed(4)
    query = Query(torch.randn(d, d, generator=random), unit(1, d, seed=6)[0], text.mean(0))
    terms: list[Any] = [
        ZeroShot(20.0),
        AdaptedHead(adapter),
        AsQuery(query, 20.0),
        Residual(text, 0.2 * unit(s, d, seed=7), 20.0),
        Gaussian(Discriminant(torch.randn(s, d, generator=random) * 9, torch.randn(s))),
    ]
    table = {
        "zero-shot": (0.1, 0.4), "head": (0.3, 0.3), "query": (0.2, 0.3),
        "residual": (0.5, 0.0), "gaussian": (0.3, 0.0),
    }  # fmt: skip
    return FittedAdapter(recipe, text, terms, table, 20.0)


@pytest.mark.parametrize("kind", ["groups", "no groups"])
@pytest.mark.parametrize("residual", ["residual", "literal"])
@pytest.mark.parametrize("new", [0, 3])
def test_folding_changes_nothing(kind: str, residual: str, new: int) -> None:
    fitted = every_term(kind, residual)
    text = torch.cat([fitted.text, unit(new, 16, seed=9)]) if new else fitted.text
    seen = torch.tensor([*range(5), *[-1] * new])
    classes = ClassSet(text, text, text, None, seen)
    x = unit(50, 16, seed=11)
    truth = fitted.logits(x, classes)
    with torch.no_grad():
        folded = FoldedAdapter(fitted, classes)(x)
    assert torch.allclose(folded, truth, atol=1e-4, rtol=1e-5)
    assert truth.std() > 1, "the terms say something"


def run_and_truth(home: Path) -> tuple[Path, PixelEncoder, torch.Tensor, torch.Tensor]:
    encoder = PixelEncoder()
    run = small_run(home / "run", encoder).path
    model = open_model(run, encoder=encoder)
    x = unit(33, encoder.dim, seed=2)
    return run, encoder, x, model.fitted.logits(x, model.classes().texts)


def test_onnx_is_equal(home: Path) -> None:
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    run, encoder, x, truth = run_and_truth(home)
    out = export(run, home / "small.onnx", encoder=encoder)
    session = runtime.InferenceSession(str(out), providers=["CPUExecutionProvider"])
    for rows in (x, x[:1]):
        (logits,) = session.run(None, {"features": rows.numpy()})
        assert np.abs(logits - truth[: len(rows)].numpy()).max() < 1e-4
    about = json.loads(session.get_modelmeta().custom_metadata_map["aape"])
    assert about["classes"] == NAMES
    assert about["trained"] == [True, True, True, False]
    assert about["encoder"] == encoder.fingerprint
    assert str(home).encode() not in out.read_bytes()


def test_torch_program_is_equal(home: Path) -> None:
    run, encoder, x, truth = run_and_truth(home)
    out = export(run, home / "small.pt2", format="torch", encoder=encoder)
    facts = {"aape.json": ""}
    program = torch.export.load(out, extra_files=facts)
    assert torch.allclose(program.module()(x), truth, atol=1e-4)
    assert json.loads(facts["aape.json"])["classes"] == NAMES


def test_a_folder_is_a_run_without_its_work(home: Path) -> None:
    run, encoder, *_ = run_and_truth(home)
    about = json.loads((run / "adapter_config.json").read_text())
    out = export(run, home / "adapter", format="folder")
    assert {p.name for p in out.iterdir()} == {
        "config.yaml", "adapter_config.json", "adapter.safetensors", "README.md",
    }  # fmt: skip
    photo = random_photo(home / "a.png")
    assert (
        predict(out, [photo], encoder=encoder)[0].as_dict()
        == predict(run, [photo], encoder=encoder)[0].as_dict()
    )
    card = (out / "README.md").read_text(encoding="utf-8")
    assert "| own weights | 0.5 | 0 |" in card
    assert "&lt;b&gt;bold&lt;/b&gt; owl" in card
    assert "<b>" not in card
    assert about["encoder"] in card
    with pytest.raises(UserError, match="is the run itself"):
        export(run, run, format="folder")
    export(run, out, format="folder")  # again over the same
    (out / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match=r"something else: mine\.txt"):
        export(run, out, format="folder")


def test_no_place_on_this_machine_leaves_with_a_folder(home: Path) -> None:
    from aape.adapter.config import Config

    encoder = PixelEncoder()
    run = small_run(home / "run", encoder)
    secret = "/home/secret/place"
    run.start(
        Config.model_validate(
            {
                "data": {"bank": f"{secret}/b.bank.parquet", "root": secret,
                         "targets": [f"{secret}/t.safetensors"]},
                "encoder": {"name": f"{secret}/clip", "checkpoint": f"{secret}/w.pt"},
            }
        )
    )  # fmt: skip
    tensors, about = run.load_weights()
    run.save_weights(tensors, about | {"bank": f"{secret}/b.bank.parquet"})
    out = export(run.path, home / "adapter", format="folder")
    for path in out.iterdir():
        assert b"secret" not in path.read_bytes(), path.name
    kept = Config.from_yaml(out / "config.yaml")
    assert kept.encoder.checkpoint == "w.pt", "that local weights are needed stays said"


@pytest.mark.parametrize(
    ("out", "options", "said"),
    [("x.bin", {}, r"\.onnx"), ("x.pt", {"format": "torch"}, r"\.pt2"),
     ("x", {"format": "tflite"}, "Unknown format"),
     ("x", {"format": "folder", "photo": True}, "adapter alone"),
     ("x.onnx", {"photo": True}, "Whole photos cannot be exported")],
)  # fmt: skip
def test_bad_input(home: Path, out: str, options: Any, said: str) -> None:
    pytest.importorskip("onnxscript")
    run, encoder, *_ = run_and_truth(home)
    with pytest.raises(UserError, match=said):
        export(run, home / out, encoder=encoder, **options)


def test_cells_stay_cells() -> None:
    assert cell("a|b\n# c") == "a\\|b # c"
    assert cell("[x](javascript:y)") == "\\[x\\](javascript:y)"


@pytest.mark.slow
def test_the_example_without_torch(home: Path) -> None:
    """The example of docs/export.md, run as it stands, with the real encoder ``lite``."""
    import subprocess
    import sys

    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    from aape.pipeline.encoders import load_encoder

    encoder = load_encoder("lite")
    run = small_run(home / "run", encoder).path  # type: ignore[arg-type]
    model = open_model(run, encoder=encoder)
    out = export(run, home / "products.onnx", photo=True, encoder=encoder)
    photos = odd_photos(random_photo(home / "shirt.jpg", size=(400, 300)), home)
    text = (REPOSITORY / "docs" / "export.md").read_text(encoding="utf-8")
    code = re.findall(r"```python\n(.*?)```", text, re.S)[0]
    assert len(code.splitlines()) <= 34
    assert "torch" not in code
    script = home / "example.py"
    script.write_text(code)
    for photo in photos:
        done = subprocess.run(
            [sys.executable, "-I", script, out, photo], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        said = dict(line.rsplit(" ", 1) for line in done.stdout.strip().splitlines())
        found = {
            one.label: one.p
            for one in model.answers(_float32_features(model, photo), model.classes(), 4)[0]
        }
        assert set(said) <= set(found)
        for label, p in said.items():
            assert float(p) == pytest.approx(found[label], abs=2e-3), photo


def odd_photos(photo: Path, folder: Path) -> list[Path]:
    """Return a photo, and the same lying on its side with a tag, with 16 bits, half transparent."""
    image = Image.open(photo)
    tag = Image.Exif()
    tag[0x0112] = 6
    image.transpose(Image.Transpose.ROTATE_90).save(folder / "lying.png", exif=tag)
    wide = np.asarray(image.convert("L")).astype(np.uint16) * 257
    Image.fromarray(wide).save(folder / "wide.png")
    clear = image.convert("RGBA")
    clear.putalpha(Image.linear_gradient("L").resize(image.size))
    clear.save(folder / "clear.png")
    return [photo, *(folder / f"{name}.png" for name in ("lying", "wide", "clear"))]


def _float32_features(model: Any, photo: Path) -> torch.Tensor:
    with torch.no_grad():
        return F.normalize(model.encoder.image_tower()(model.pixels(photo)[None]), dim=-1)


@pytest.mark.parametrize("resize_mode", ["shortest", "squash"])
def test_open_clips_reading_is_found_within_its_composition(resize_mode: str) -> None:
    """Once the steps stood one composition deeper, and CLIP's photos could not be exported."""
    from open_clip.transform import PreprocessCfg, image_transform_v2
    from torchvision.transforms import Compose

    from aape.adapter.export.open_classes import how_photos_are_read
    from aape.pipeline.pictures import to_rgb

    settings = PreprocessCfg(size=32, resize_mode=resize_mode, mean=(0.1, 0.2, 0.3), std=(1, 1, 2))
    found = how_photos_are_read(Compose([to_rgb, image_transform_v2(settings, is_train=False)]))
    if resize_mode == "squash":  # no centre is cut
        assert found is None
    else:
        assert found == {
            "resize": 32, "crop": 32, "interpolation": "bicubic",
            "mean": [0.1, 0.2, 0.3], "std": [1.0, 1.0, 2.0],
        }  # fmt: skip
