"""Training on captions: masks by hand, exact resume, reuse, and what it must not do."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fake_captions import COLOURS, FakeDataset
from fakes import ColourEncoder, unit_rows
from processes import run_group
from safetensors.torch import save_file

from aape.adapter.captions.contrasts import contrast_accuracy
from aape.adapter.captions.data import (
    caption_set,
    relevance_groups,
    some,
    training_and_validation,
)
from aape.adapter.captions.loss import caption_loss, caption_loss_part, false_negatives
from aape.adapter.captions.retrieval import evaluate_retrieval, mixture
from aape.adapter.captions.settings import CaptionConfig
from aape.adapter.captions.train import CaptionAdapter, caption_generator, train_captions
from aape.adapter.run import RunFolder
from aape.pipeline.datasets import CaptionedImage
from aape.pipeline.errors import UserError
from aape.pipeline.files import hash_value, read_json, write_json
from aape.pipeline.store import read_tensors


def unit(rows: list[list[float]]) -> torch.Tensor:
    return torch.from_numpy(unit_rows(np.array(rows)))


def test_false_negatives_by_hand() -> None:
    """Image 1's second caption equals image 0's only one; nothing else is near."""
    p = torch.stack([unit([[1, 0, 0], [9, 9, 9]]), unit([[0, 1, 0], [1, 0, 0]])])
    mask = torch.tensor([[True, False], [True, True]])
    own, masked = false_negatives(p, mask, 0.97)
    assert own.tolist() == [[True, False, False], [False, True, True]]
    # image 0 must not be pushed from image 1's copy; image 1 not from image 0's
    assert masked.tolist() == [[False, False, True], [True, False, False]]


def test_loss_by_hand() -> None:
    """Two images, orthogonal captions, h equal to its caption: the loss of a 2 × 2 softmax."""
    p, mask = torch.eye(2)[:, None], torch.ones(2, 1, dtype=torch.bool)
    loss = caption_loss(torch.eye(2), p, mask, 3.0, 0.97)
    assert float(loss) == pytest.approx(float(np.log1p(np.exp(-3.0))), rel=1e-5)
    # padding changes nothing, whatever is in it
    padded = torch.cat([p, torch.full((2, 1, 2), 7.0)], 1)
    wide = torch.tensor([[True, False]] * 2)
    assert float(caption_loss(torch.eye(2), padded, wide, 3.0, 0.97)) == pytest.approx(float(loss))


@pytest.mark.parametrize("cuts", [[0, 3, 7], [0, 1, 1, 4, 7]])
def test_parts_of_the_loss_add_up_to_it(cuts: list[int]) -> None:
    """Loss and gradient, with padding, repeated captions and a process that has no image."""
    generator = torch.Generator().manual_seed(0)
    p = torch.nn.functional.normalize(torch.randn(7, 3, 5, generator=generator), dim=-1)
    p[4, 1] = p[0, 0]  # a false negative across the parts
    mask = torch.arange(3) < torch.tensor([3, 1, 2, 3, 2, 1, 3])[:, None]
    h = torch.randn(7, 5, generator=generator, requires_grad=True)
    whole = caption_loss(h, p, mask, 2.0, 0.97)
    (wanted,) = torch.autograd.grad(whole, h)
    parts = [caption_loss_part(h, p, mask, 2.0, 0.97, slice(*ends)) for ends in pairwise(cuts)]
    torch.testing.assert_close(sum(parts), whole)
    (found,) = torch.autograd.grad(sum(parts), h)
    torch.testing.assert_close(found, wanted)
    unmasked = caption_loss(h, p, mask, 2.0, 2.0)
    assert float(unmasked.detach()) > float(whole.detach()) + 1e-3  # the mask matters here


GROUP = """
from pathlib import Path
from fake_captions import FakeDataset
from fakes import ColourEncoder
from aape.adapter.captions import run as caption_run
from aape.adapter.captions.run import CaptionRunConfig
from aape.adapter.captions.train import CaptionConfig, train_captions
from aape.adapter.run import RunFolder
from aape.pipeline.files import write_json
from aape.pipeline.ranks import joined
from aape.pipeline.store import write_tensors
folder = Path({folder!r})

def train(rank):
    with joined():
        data = FakeDataset(folder / str(rank))
        for aggregator in ("attention", "random"):
            run = RunFolder(folder / f"together-{{aggregator}}")
            config = CaptionConfig(epochs=3, batch_size=7, lr=0.01, aggregator=aggregator)
            adapter = train_captions(data, ColourEncoder(), config=config, run=run)
            again = train_captions(data, ColourEncoder(), config=config, run=run)
            assert again.hash == adapter.hash
            name = f"{{aggregator}}-{{rank}}"
            write_json(folder / f"{{name}}.json", adapter.details)
            write_tensors(folder / f"{{name}}.safetensors", adapter.generator.state_dict(), {{}})
    caption_run.open_dataset = lambda *_: data
    caption_run.open_encoder = lambda *_: ColourEncoder()
    config = CaptionRunConfig(dataset="fake", captions=config, seeds=[1, 2])
    table = caption_run.run_captions(config, folder / "run")  # joins by itself
    assert [row["seed"] for row in table.method("h(x)").seeds] == [1, 2]
"""


@pytest.mark.slow
def test_processes_train_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Equal losses, recall and weights up to rounding; batches of 6 and 5 images for two."""
    home = tmp_path / "home"
    for rank in range(2):
        (tmp_path / str(rank)).mkdir()
    said = run_group(GROUP.format(folder=str(tmp_path)), "train", home=home)
    assert said.count("Reusing the caption adapter") == 2  # by the first process, of two kinds
    assert (tmp_path / "run" / "results" / "captions.md").exists()
    assert len(list((tmp_path / "run").rglob("caption_adapter.safetensors"))) == 2
    monkeypatch.setenv("AAPE_HOME", str(home))
    for aggregator in ("attention", "random"):
        config = CaptionConfig(epochs=3, batch_size=7, lr=0.01, aggregator=aggregator)
        one = train_captions(FakeDataset(tmp_path), ColourEncoder(), config=config)
        assert len(one.details["train_loss"]) == 3
        for rank in range(2):
            details = read_json(tmp_path / f"{aggregator}-{rank}.json")
            for name in ("train_loss", "val_recall"):
                assert details[name] == pytest.approx(one.details[name], rel=1e-5), name
            found, _ = read_tensors(tmp_path / f"{aggregator}-{rank}.safetensors")
            for name, value in one.generator.state_dict().items():
                torch.testing.assert_close(found[name], value, atol=1e-5, rtol=1e-4)


def test_equal_captions_do_not_push() -> None:
    """With all captions equal every negative is masked: no loss, no gradient."""
    p, mask = torch.tensor([[[1.0, 0.0]]] * 3), torch.ones(3, 1, dtype=torch.bool)
    h = torch.randn(3, 2, requires_grad=True)
    loss = caption_loss(h, p, mask, 10.0, 0.97)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(0, abs=1e-6)
    assert h.grad is not None
    assert float(h.grad.abs().max()) == pytest.approx(0, abs=1e-6)


def test_forms_start_where_they_say() -> None:
    text, image = unit([[1, 2, 3, 4]])[0], unit([[4, 3, 2, 1]])[0]
    x = torch.randn(5, 4)
    moved = caption_generator(CaptionConfig(form="image"), text, image)(x)
    torch.testing.assert_close(moved, x - image + text)
    mean = caption_generator(CaptionConfig(form="mean"), text, image)(x)
    torch.testing.assert_close(mean, text.expand(5, 4))
    literal = caption_generator(CaptionConfig(form="literal"), text, image)
    assert float(literal(x).std(0).min()) > 0
    assert float(literal.mean_text.abs().max()) == 0


def test_shared_captions_join_images() -> None:
    groups = relevance_groups([["a", "b"], ["c"], ["b", "d"], ["d"], ["e"]])
    assert groups[0] == groups[2] == groups[3]
    assert len({groups[0], groups[1], groups[4]}) == 3


def test_a_killed_training_ends_with_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AAPE_HOME", str(tmp_path / "home"))
    data, encoder = FakeDataset(tmp_path), ColourEncoder()
    config = CaptionConfig(epochs=4, batch_size=8, lr=0.01)
    whole = train_captions(data, encoder, config=config, run=RunFolder(tmp_path / "whole"))

    from aape.adapter.captions import train as captions

    kept, calls = captions.save_checkpoint, []

    def killed(*arguments: object) -> None:
        kept(*arguments)  # type: ignore[arg-type]
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(captions, "save_checkpoint", killed)
    with pytest.raises(KeyboardInterrupt):
        train_captions(data, encoder, config=config, run=RunFolder(tmp_path / "cut"))
    again = train_captions(data, encoder, config=config, run=RunFolder(tmp_path / "cut"))
    assert len(calls) == 4
    for name, value in whole.generator.state_dict().items():
        assert torch.equal(value, again.generator.state_dict()[name]), name
    monkeypatch.setattr(captions, "_fit", None)  # a finished training is not run again
    folder = tmp_path / "cut" / "captions" / "seed-1"
    state = folder / f"training-{again.details['key'][:16]}-2.safetensors"
    state.write_bytes(b"what a kill after the last epoch leaves")
    reused = train_captions(data, encoder, config=config, run=RunFolder(tmp_path / "cut"))
    assert reused.hash == whole.hash
    assert not list((tmp_path / "cut").rglob("training-*"))


def test_training_helps_and_the_table_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AAPE_HOME", str(tmp_path / "home"))
    data, encoder = FakeDataset(tmp_path), ColourEncoder()
    run = RunFolder(tmp_path / "run")
    config = CaptionConfig(epochs=30, batch_size=16, lr=0.01)
    adapters = [
        train_captions(data, encoder, config=config.model_copy(update={"seed": seed}))
        for seed in (1, 2)
    ]
    results = evaluate_retrieval(data, encoder, adapters, run=run)
    plain, ours = results.method("x (zero-shot)"), results.method("h(x)")
    assert ours.mean("mean R") > plain.mean("mean R") + 10
    assert [row["seed"] for row in ours.seeds] == [1, 2]
    low, high = results.intervals["h(x) - x"]["mean R"]
    assert 0 < low < high
    assert run.results_path("retrieval").exists()
    assert {"image", "truth", "output"} <= set(results.samples[0])
    for sample in results.samples:  # the shown caption and its rank come from the same queries
        same = {c for c in COLOURS if c in sample["truth"]} == {
            c for c in COLOURS if c in sample["output"]
        }
        assert sample["good"] == same


def test_adapter_is_kept_and_refuses_another_encoder(tmp_path: Path) -> None:
    encoder = ColourEncoder()
    mean = torch.zeros(encoder.dim)
    generator = caption_generator(CaptionConfig(), mean, mean)
    adapter = CaptionAdapter(generator, CaptionConfig(), "fake", encoder.fingerprint)
    adapter.save(tmp_path)
    again = CaptionAdapter.load(tmp_path)
    x = np.random.default_rng(0).normal(size=(3, encoder.dim)).astype(np.float32)
    np.testing.assert_array_equal(adapter.h(x), again.h(x))
    encoder.weights_hash = "f" * 64
    with pytest.raises(UserError, match="trained on features of"):
        again.check_encoder(encoder)
    with pytest.raises(UserError, match="aape train-captions"):
        CaptionAdapter.load(tmp_path / "nothing")


def test_images_without_captions_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AAPE_HOME", str(tmp_path / "home"))
    data, encoder = FakeDataset(tmp_path), ColourEncoder()
    images = data.captions("test")
    bare = CaptionedImage("bare", images[0].path, (" ",))
    found = caption_set(encoder, [bare, *images], "test")
    assert len(found.images) == len(images)
    assert found.mask.sum().item() == sum(len(image.captions) for image in images)
    with pytest.raises(UserError, match="No test image has a caption"):
        caption_set(encoder, [bare], "test")


def test_captions_whose_picture_is_not_there_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AAPE_HOME", str(tmp_path / "home"))
    data = FakeDataset(tmp_path)
    lost = data.captions("test")[0].path
    lost.unlink()
    with pytest.raises(UserError, match=lost.name):
        caption_set(ColourEncoder(), data.captions("test"), "test")


def test_mixture_and_contrasts_by_hand() -> None:
    x, h = np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]])
    np.testing.assert_allclose(mixture(x, h, 0.5), [[0.5**0.5, 0.5**0.5]])
    image = np.eye(2)[[0, 0, 1, 1]]
    right, wrong = np.eye(2)[[0, 1, 1, 1]], np.eye(2)[[1, 0, 0, 1]]
    row = contrast_accuracy(image, right, wrong, ["swap", "swap", "add", "add"])
    assert row == {"add": 50.0, "swap": 50.0, "mean": 50.0}  # the last pair is a tie: an error


def test_some_is_stable() -> None:
    assert some(list("abcdef"), 3) == some(list("abcdef"), 3)
    assert sorted(some(list("abcdef"), 3)) == some(list("abcdef"), 3)
    assert some(list("abc"), 0) == list("abc")


def test_validation_is_held_out_where_there_is_none(tmp_path: Path) -> None:
    class Unvalidated(FakeDataset):
        def captions(self, split: str) -> list[CaptionedImage]:
            if split == "val":
                raise UserError("no validation split")
            return super().captions("train")

    data = Unvalidated(tmp_path)
    train, val = training_and_validation(data)  # type: ignore[arg-type]
    everything = data.captions("train")
    assert len(val) == len(everything) // 5
    assert sorted(train + val, key=lambda i: int(i.image_id)) == everything
    data.rows.reverse()  # what is held out does not depend on the order
    again = training_and_validation(data)[1]  # type: ignore[arg-type]
    assert len({image.path for image in val} & {image.path for image in again}) <= len(val)
    bare = [CaptionedImage(f"bare {i}", Path(), (" ",)) for i in range(50)]
    data.captions = lambda split: [*bare, *Unvalidated.captions(data, split)]
    train, val = training_and_validation(data)  # type: ignore[arg-type]
    assert not {image.image_id for image in bare} & {image.image_id for image in val}
    assert len(train) + len(val) == len(everything) + 50
    whole = FakeDataset(tmp_path)
    assert training_and_validation(whole) == (whole.captions("train"), whole.captions("val"))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["caption_adapter.json", "caption_adapter.safetensors"])
def test_a_flipped_bit_of_a_finished_training_is_found(name: str, tmp_path: Path) -> None:
    data, encoder = FakeDataset(tmp_path), ColourEncoder()
    config, run = CaptionConfig(epochs=1, batch_size=8), RunFolder(tmp_path / "run")
    first = train_captions(data, encoder, config=config, run=run)
    folder = tmp_path / "run" / "captions" / "seed-1"
    whole = (folder / name).read_bytes()
    for place in range(9, len(whole), max(1, len(whole) // 40)):
        (folder / name).write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        try:
            found = CaptionAdapter.load(folder)
        except UserError:
            continue
        for key, value in found.generator.state_dict().items():  # the bit was in a name of a note
            assert torch.equal(value, first.generator.state_dict()[key])
        assert (found.config, found.details) == (first.config, first.details)
    again = train_captions(data, encoder, config=config, run=run)
    assert again.details["key"] == first.details["key"]
    assert CaptionAdapter.load(folder).details == again.details


@pytest.mark.parametrize("form", ["image", "mean", "literal"])
def test_adapters_of_older_versions_still_load(form: Any, tmp_path: Path) -> None:
    """Then ``h`` was a class around an MLP: other names of tensors, the same sums."""
    generator = torch.Generator().manual_seed(0)
    names = {"inner.weight": (64, 4), "inner.bias": (64,), "outer.weight": (4, 64),
             "outer.bias": (4,), "mean_text": (4,), "mean_image": (4,)}  # fmt: skip
    old = {f"mlp.{name}": torch.randn(*shape, generator=generator) for name, shape in names.items()}
    save_file(old, tmp_path / "caption_adapter.safetensors")
    config = CaptionConfig(form=form)
    about = {"config": config.model_dump(mode="json"), "dataset": "fake", "encoder": "e@1"}
    write_json(tmp_path / "caption_adapter.json", about)
    loaded = CaptionAdapter.load(tmp_path)
    x = torch.randn(5, 4, generator=generator)
    inner = torch.relu(
        (x - old["mlp.mean_image"]) @ old["mlp.inner.weight"].T + old["mlp.inner.bias"]
    )
    h = old["mlp.mean_text"] + inner @ old["mlp.outer.weight"].T + old["mlp.outer.bias"]
    h = h + x - old["mlp.mean_image"] if form == "image" else h
    expected = torch.nn.functional.normalize(h, dim=-1).numpy()
    np.testing.assert_allclose(loaded.h(x.numpy()), expected, atol=1e-6)
    # prefixes that were trained on it are found by this hash
    sums = {name: value.double().sum().item() for name, value in old.items()}
    assert loaded.hash == hash_value(sums)[:16]
    loaded.save(tmp_path / "again")
    again = CaptionAdapter.load(tmp_path / "again")
    assert again.hash == loaded.hash
    np.testing.assert_array_equal(again.h(x.numpy()), loaded.h(x.numpy()))
