"""Photos without labels: shares, balanced labels, the Gaussian classes, and the rule of trust."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from toy_world import world

from aape.adapter.baselines.label_free import transclip
from aape.adapter.classification.feature_file import FileSource
from aape.adapter.classification.photo_pool import read_pool, without
from aape.adapter.classification.run import default_folder, run_classification
from aape.adapter.classification.unlabelled import evaluate_unlabelled
from aape.adapter.classification.unlabelled_rows import verdict
from aape.adapter.config import Config, EvaluationConfig
from aape.adapter.method.class_statistics import ClassStatistics
from aape.adapter.method.recipe import DEFAULT
from aape.adapter.method.unlabelled import (
    balanced_labels,
    class_shares,
    classless,
    fit_unlabelled,
)
from aape.pipeline.errors import UserError

SCALE = 100.0


def accuracy(logits: torch.Tensor, y: torch.Tensor) -> float:
    return float((logits.argmax(1) == y).float().mean() * 100)


def test_shares_by_hand() -> None:
    # certain posteriors: the shares are the counts, with one photo more a class
    logits = torch.tensor([[50.0, 0.0, 0.0]] * 5 + [[0.0, 50.0, 0.0]] * 2)
    expected = torch.tensor([6 / 10, 3 / 10, 1 / 10])
    assert torch.allclose(class_shares(logits), expected, atol=1e-4)


def test_one_step_of_shares_is_that_of_saerens() -> None:
    logits = torch.randn(40, 3, generator=torch.Generator().manual_seed(1))
    share = class_shares(logits, smoothing=0.0)
    posterior = (logits + share.log()).softmax(1)
    assert torch.allclose(posterior.mean(0), share, atol=2e-2), "a fixed point"


def test_balanced_labels_have_the_shares_asked_for() -> None:
    logits = 3 * torch.randn(60, 4, generator=torch.Generator().manual_seed(2))
    shares = torch.tensor([0.1, 0.2, 0.3, 0.4])
    q = balanced_labels(logits, shares)
    assert torch.allclose(q.sum(1), torch.ones(60), atol=1e-5)
    assert torch.allclose(q.mean(0), shares, atol=5e-3)
    # columns are scaled, so odds within a class change alike for all photos
    ratio = (q / logits.softmax(1)).log()
    ratio = ratio - ratio[:, :1]
    assert torch.allclose(ratio, ratio[:1].expand_as(ratio), atol=1e-3)


def test_statistics_by_hand() -> None:
    x = torch.tensor([[0.0, 0.0], [2.0, 0.0], [5.0, 1.0]])
    found = ClassStatistics.of(x, torch.tensor([0, 0, 1]), 2)
    assert found.count.tolist() == [2, 1]
    assert found.mean.tolist() == [[1, 0], [5, 1]]
    assert found.scatter.tolist() == [[2, 0], [0, 0]]
    soft = ClassStatistics.of(x, torch.tensor([[0.5, 0.5]] * 3))
    naive = sum(
        0.5 * torch.outer(row - soft.mean[k].float(), row - soft.mean[k].float())
        for row in x for k in (0, 1)
    )  # fmt: skip
    assert torch.allclose(soft.scatter.float(), torch.as_tensor(naive), atol=1e-5)


def test_the_discriminant_without_a_prior_is_that_of_the_labels() -> None:
    from aape.adapter.method.discriminant import fit_discriminant

    x, y, t = world([6, 9, 12, 5])
    ours = ClassStatistics.of(x, y, 4).discriminant(t, prior=0.0)
    theirs = fit_discriminant(x, y, 4)
    assert torch.allclose(ours.weight, theirs.weight, rtol=1e-4, atol=1e-3)
    assert torch.allclose(ours.bias, theirs.bias, rtol=1e-4, atol=1e-3)


def test_a_mean_lies_between_photos_and_text() -> None:
    x, y, t = world([2, 40, 40])
    found = ClassStatistics.of(x, y, 3)
    expected = found.expected_means(t)
    strong = found.discriminant(t, prior=1e9)
    by_text = ClassStatistics(found.count, expected, found.scatter + spread(found, expected))
    bare = by_text.discriminant(t, prior=0.0)
    # the average photo differs, so classes are compared with each other
    assert torch.allclose(
        strong.weight - strong.weight[0], bare.weight - bare.weight[0], rtol=1e-3, atol=1e-2
    )


def spread(found: ClassStatistics, means: torch.Tensor) -> torch.Tensor:
    apart = found.mean - means
    return (apart.T * found.count) @ apart


@pytest.mark.parametrize("counts", [[40] * 12, [120, 90, 70, 50, 40, 30, 20, 15, 10, 8, 6, 5]])
def test_photos_help_in_balanced_and_unbalanced_pools(counts: list[int]) -> None:
    x, _, t = world(counts)
    test_x, test_y, _ = world([60] * 12, seed=1)
    found = fit_unlabelled(x, lambda v: SCALE * v @ t.T, t)
    plain = SCALE * test_x @ t.T
    better = plain + found.weight * found.discriminant(test_x)
    assert found.trusted
    assert accuracy(plain, test_y) < 90, "there is something to gain"
    assert accuracy(better, test_y) > accuracy(plain, test_y) + 2


def test_estimated_shares_follow_an_unbalanced_pool() -> None:
    counts = [160] * 4 + [10] * 8
    x, _, t = world(counts)
    shares = fit_unlabelled(x, lambda v: SCALE * v @ t.T, t).shares
    truth = torch.tensor(counts) / sum(counts)
    equal = torch.full((12,), 1 / 12)
    assert (shares - truth).abs().sum() < 0.6 * (equal - truth).abs().sum()


def test_the_cloud_has_mean_and_covariance_of_the_pool() -> None:
    x, _, _ = world([400] * 12)
    cloud = classless(x, seed=0)
    assert torch.allclose(cloud.norm(dim=1), torch.ones(len(x)), atol=1e-5)
    assert torch.allclose(cloud.mean(0), x.mean(0), atol=0.03)
    assert torch.allclose(torch.cov(cloud.T), torch.cov(x.T), atol=0.01)


@pytest.mark.parametrize("kind", ["noise", "one photo", "few", "empty"])
def test_foreign_pools_are_refused(kind: str) -> None:
    _, _, t = world([1] * 12)
    generator = torch.Generator().manual_seed(3)
    noise = F.normalize(torch.randn(300, 32, generator=generator), dim=-1)
    pools = {"noise": noise, "one photo": noise[:1].repeat(100, 1), "few": noise[:5]}
    x = pools.get(kind, noise[:0])
    found = fit_unlabelled(x, lambda v: SCALE * v @ t.T, t)
    assert not found.trusted
    assert found.weight == 0
    assert torch.isfinite(found.discriminant.weight).all()


def test_too_few_photos_a_class_are_not_used() -> None:
    """However clear the classes are; and no label is looked at for it."""
    x, _, t = world([3] * 12)
    few = fit_unlabelled(x, lambda v: SCALE * v @ t.T, t)
    assert not few.enough
    assert not few.trusted
    assert (few.a_class, few.weight) == (3.0, 0)
    more = fit_unlabelled(world([5] * 12)[0], lambda v: SCALE * v @ t.T, t)
    assert more.enough
    # photos with labels count, they are in the same means
    labelled = ClassStatistics.of(x, torch.arange(12).repeat_interleave(3), 12)
    assert fit_unlabelled(x, lambda v: SCALE * v @ t.T, t, labelled=labelled).a_class == 6.0
    said = verdict({"enough photos": False, "photos a class": 3.0})
    assert "3 a class on average, and 4 are needed" in said


def official_transclip(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """The published updates, written with loops over classes and dimensions."""
    n, d = x.shape
    c = len(t)
    prior = (SCALE * x @ t.T).softmax(1)
    z = prior.clone()
    mu = torch.zeros(c, d)
    for k in range(c):
        rows = prior[:, k].topk(8).indices
        mu[k] = (x[rows] * prior[rows, k : k + 1]).mean(0)
    mu = F.normalize(mu, dim=-1)
    variance = torch.full((d,), 1 / d)
    likeness = x @ x.T
    near = torch.zeros(n, n)
    for i in range(n):
        for j in likeness[i].topk(4).indices[1:].tolist():
            near[i, j] = likeness[i, j]
    for step in range(11):
        likelihood = torch.stack(
            [-0.5 * ((x - mu[k]).square() / variance).sum(1) for k in range(c)], 1
        )
        for _ in range(5):
            inside = likelihood + 50 / 6 * (near.T @ z + near @ z)
            inside = inside - inside.amax(1, keepdim=True)
            z = prior * (inside / 50).exp()
            z = z / z.sum(1, keepdim=True)
        if step == 10:
            break
        mu = F.normalize((z.T @ x) / z.sum(0)[:, None], dim=-1)
        variance = sum(z[:, k] @ (x - mu[k]).square() for k in range(c)) / n
    return z


def test_transclip_is_that_of_its_authors() -> None:
    x, _, t = world([15] * 6)
    assert torch.allclose(transclip(x, t, SCALE), official_transclip(x, t), atol=1e-4)


def write_file(path: Path, **more: torch.Tensor) -> Path:
    x, y, t = world([30] * 12)
    test_x, test_y, _ = world([40] * 12, seed=1)
    tensors = {
        "train.features": x, "train.labels": y, "test.features": test_x, "test.labels": test_y,
        "class_text.features": t, **more,
    }  # fmt: skip
    names = json.dumps([f"thing {i}" for i in range(12)])
    save_file(tensors, path, metadata={"classnames": names, "encoder": "toy"})
    return path


def test_a_run_without_labels_looks_at_none(tmp_path: Path, aape) -> None:
    path = write_file(tmp_path / "a.safetensors")
    words = ("train", "--features", path, "--unlabelled", "train", "--seeds", "0,1")
    done = aape(*words, "--out", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    table = json.loads((tmp_path / "run" / "results" / "classification.json").read_text())
    assert table["protocol"] == "unlabelled/1"
    ours = {m["name"]: m["summary"]["accuracy"]["mean"] for m in table["methods"]}
    assert ours["ours"] > ours["zero-shot"] + 2
    assert {"LaFTer's rule", "NoLA's rule", "TransCLIP"} <= set(ours)
    about = json.loads((tmp_path / "run" / "adapter_config.json").read_text())
    assert about["protocol"] == "unlabelled/1"
    # other labels of the pool, same adapter
    _, y, _ = world([30] * 12)
    write_file(tmp_path / "a.safetensors", **{"train.labels": y.flip(0).clone()})
    again = aape(*words, "--out", tmp_path / "again", "--baselines", "none")
    assert again.returncode == 0, again.stderr
    first, second = (
        load_file(tmp_path / name / "adapter.safetensors") for name in ("run", "again")
    )
    assert first.keys() == second.keys()
    # what is finished is not done again, and gives the same run
    third = aape(*words, "--out", tmp_path / "again", "--baselines", "none")
    assert third.returncode == 0, third.stderr
    assert "Reused 6 of 6 finished trainings" in third.stderr
    assert load_file(tmp_path / "again" / "adapter.safetensors").keys() == second.keys()
    for name, tensor in first.items():
        assert torch.allclose(tensor, second[name], rtol=1e-4, atol=1e-5), name


def test_some_labels_and_more_photos(tmp_path: Path) -> None:
    source = FileSource(write_file(tmp_path / "a.safetensors"))
    pool = read_pool("train", source, None)
    settings = EvaluationConfig(shots=1, seeds=[0, 1], baselines=["none"], resamples=0)
    results, (adapter, found), _ = evaluate_unlabelled(source, pool, DEFAULT, settings, semi=True)
    assert results.protocol == "semi/1"
    assert found.trusted
    assert float(found.statistics.count.sum()) == pytest.approx(len(pool), abs=0.1)
    both = results.method("ours").mean("accuracy")
    assert both >= results.method("ours, labels alone").mean("accuracy") - 0.5
    assert adapter.term("gaussian") is not None


def test_labelled_photos_are_not_counted_twice() -> None:
    pool = F.normalize(torch.randn(9, 8), dim=-1)
    assert torch.equal(without(pool, pool[[0, 4]]), pool[[1, 2, 3, 5, 6, 7, 8]])


def test_a_pool_holds_no_test_photos(tmp_path: Path) -> None:
    source = FileSource(write_file(tmp_path / "a.safetensors"))
    train = read_pool("train", source, None)
    tests = torch.from_numpy(source.split("test").x)
    settings = EvaluationConfig(shots=1, seeds=[0], baselines=["none"], resamples=0)
    alone, (_, first), _ = evaluate_unlabelled(source, train, DEFAULT, settings)
    mixed = torch.cat([tests[:40], train, tests[40:]])
    both, (_, second), _ = evaluate_unlabelled(source, mixed, DEFAULT, settings)
    assert torch.equal(first.statistics.mean, second.statistics.mean)
    assert both.method("ours").mean("accuracy") == alone.method("ours").mean("accuracy")
    assert f"{len(tests)} more are test photos and were left out." in " ".join(both.notes)
    assert "left out" not in " ".join(alone.notes)
    with pytest.raises(UserError, match="are test photos"):
        evaluate_unlabelled(source, tests, DEFAULT, settings)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--shots", "0"], "must be photos without labels"),
        (["--semi"], "must be photos without labels"),
        (["--unlabelled", "nowhere.safetensors"], "does not exist"),
        (["--unlabelled", "nowhere"], "needs an encoder"),
        (["--unlabelled", "narrow.safetensors"], "width"),
        (["--unlabelled", "a.safetensors"], "unlabelled.features"),
    ],
)
def test_bad_pools_are_one_sentence(tmp_path: Path, aape, words: list[str], said: str) -> None:
    write_file(tmp_path / "a.safetensors")
    save_file({"features": torch.ones(3, 5)}, tmp_path / "narrow.safetensors")
    done = aape("train", "--features", "a.safetensors", *words, "--out", "run", cwd=tmp_path)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert np.all([not p.name.startswith("run") for p in tmp_path.iterdir()])


def test_a_pool_from_a_file_of_features(tmp_path: Path) -> None:
    source = FileSource(write_file(tmp_path / "a.safetensors"))
    width = source.texts.template.shape[1]
    rows = 3 * F.normalize(torch.randn(5, width), dim=-1)
    file = tmp_path / "pool.safetensors"
    save_file({"features": rows[:1].clone(), "unlabelled.features": rows}, file)
    assert torch.allclose(read_pool(str(file), source, None), rows / 3, atol=1e-6)
    for odd, said in [
        (rows[0].clone(), "no table of finite values"),
        (torch.full((2, width), torch.nan), "no table of finite values"),
        (rows[:, 1:].contiguous(), f"have width {width - 1}, the class texts {width}"),
    ]:
        save_file({"features": odd}, file)
        with pytest.raises(UserError, match=said):
            read_pool(str(file), source, None)


@pytest.mark.parametrize(
    ("data", "evaluation", "folder"),
    [
        ({"bank": "x/cars.bank.parquet"}, {}, "cars-base2new-16shot-default"),
        ({"bank": "c.parquet", "unlabelled": "p"}, {"shots": 4}, "c-unlabelled-0shot-default"),
        ({"bank": "c", "unlabelled": "p", "semi": True}, {"shots": 4}, "c-semi-4shot-default"),
        ({"features": "a.b.safetensors"}, {"shots": "all"}, "a-base2new-all-shots-default"),
    ],
)  # fmt: skip
def test_a_run_is_called_what_it_was_trained_on(data: dict, evaluation: dict, folder: str) -> None:
    config = Config.parse({"data": data, "evaluation": evaluation}, "test")
    assert default_folder(config) == Path("runs") / folder


@pytest.mark.parametrize(
    ("data", "protocol", "said"),
    [
        ({"unlabelled": "p"}, "fewshot/1", "photos without labels"),
        ({}, "incremental/1", "the protocol incremental"),
    ],
)
def test_names_are_not_chosen_where_nothing_would_choose(
    data: dict, protocol: str, said: str, tmp_path: Path
) -> None:
    values = {"data": data, "evaluation": {"names": "best", "protocol": protocol}}
    with pytest.raises(UserError, match=said):
        run_classification(Config.parse(values, "test"), tmp_path / "run")
    assert not (tmp_path / "run").exists()
