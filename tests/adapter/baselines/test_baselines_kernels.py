"""APE, ProKeR, TIMO and AMU-Tuning against their formulas, written the slow and obvious way."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from fakes import unit
from torch import Tensor

from aape.adapter.baselines import BASELINES, amu_tuning, ape, proker, timo
from aape.adapter.baselines.blocked_cholesky import solve_blocked
from aape.adapter.baselines.cache import cache_logits
from aape.adapter.baselines.mixture_search import choose_mixture, right_counts
from aape.adapter.method.problem import ClassSet, FewShot

C, D, SHOTS, K = 5, 12, 4, 3
NEW = ["APE", "APE-T", "ProKeR", "TIMO", "TIMO-S", "AMU-Tuning"]


def problem(c: int = C, shots: int = SHOTS, val: int = 3, k: int = K, blur: float = 1.6) -> FewShot:
    """Clusters around directions that texts and prompts only roughly know."""
    centres = unit(c, D, seed=0)
    w = F.normalize(centres + blur * unit(c, D, seed=1), dim=-1)
    prompts = F.normalize(centres[:, None] + blur * unit(c, k, D, seed=4), dim=-1)
    mask = torch.ones(c, k, dtype=torch.bool)
    if k > 1:
        mask[0, -1] = False
        prompts = prompts * mask[..., None]

    def images(count: int, seed: int) -> tuple[Tensor, Tensor]:
        y = torch.arange(c).repeat(count)
        return F.normalize(centres[y] + 0.9 * unit(len(y), D, seed=seed), dim=-1), y

    x, y = images(shots, 2)
    val_x, val_y = images(val, 3) if val else (x[:0], y[:0])
    classes = ClassSet(w, w, w, w, torch.arange(c))
    return FewShot(x, y, None, classes, prompts, mask, val_x, val_y, 30.0, shots)


# they read more than features: learned words, or features before the last projection
NEED_MORE = ("literal recipe", "staged recipe", "CoOp", "CoCoOp", "ProLIP")


@pytest.mark.parametrize("name", [name for name in BASELINES if name not in NEED_MORE])
@pytest.mark.parametrize(
    ("c", "shots", "val", "k"), [(2, 1, 0, 1), (2, 1, 1, 3), (3, 2, 0, 3), (5, 1, 4, 1)]
)  # fmt: skip
def test_smallest_problems(name, c, shots, val, k):
    data = problem(c, shots, val, k)
    fitted = BASELINES[name].fit(data, 0)
    text = unit(2, D, seed=9)
    mixed = ClassSet(*[torch.cat([data.w[:1], text])] * 4, torch.tensor([0, -1, -1]))
    for classes in (data.classes, mixed):
        logits = fitted.logits(data.x, classes)
        assert logits.shape == (len(data.x), len(classes))
        assert logits.isfinite().all()
    if name in NEW:  # classes without images are left to zero-shot CLIP
        found = fitted.logits(data.x, mixed)
        torch.testing.assert_close(found[:, 1:], data.scale * data.x @ text.T)
        seen = fitted.logits(data.x, data.classes)[:, 0]
        torch.testing.assert_close(found[:, 0], seen, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", NEW)
def test_better_than_zero_shot_on_its_clusters(name):
    data, held = problem(shots=8, val=8, blur=4.0), problem(val=40, blur=4.0)
    zero_shot = (data.scale * held.val_x @ data.w.T).argmax(1) == held.val_y
    found = BASELINES[name].fit(data, 0).logits(held.val_x, data.classes).argmax(1) == held.val_y
    assert found.float().mean() > zero_shot.float().mean() + 0.05


def test_a_range_of_weights_is_counted_one_by_one():
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(40, 4, generator=generator)
    votes = torch.randn(40, 4, generator=generator).clamp_min(0)  # some rows rise together
    y = torch.randint(4, (40,), generator=generator)
    weights = torch.linspace(0.1, 9, 50)
    expected = [int(((start + a * votes).argmax(1) == y).sum()) for a in weights]
    assert right_counts(start, votes, y, weights).tolist() == expected


def test_the_choice_of_a_mixture_is_that_of_a_full_search():
    data, betas, alphas = problem(val=20), [0.5, 2.0, 8.0], [0.1, 0.5, 1.0, 4.0, 20.0]
    start = data.scale * data.val_x @ data.w.T

    def logits(beta: float, alpha: float) -> Tensor:
        return start + alpha * cache_logits(data.val_x, data.x, data.y, C, beta)

    def rank(pair: tuple[float, float]) -> tuple[float, float]:
        values = logits(*pair)
        right = (values.argmax(1) == data.val_y).float().mean()
        return float(right), -float(F.cross_entropy(values, data.val_y))

    expected = max(((b, a) for b in betas for a in alphas), key=rank)

    def votes(part: slice):
        return lambda beta: cache_logits(data.val_x[part], data.x, data.y, C, beta)

    beta, alpha, score = choose_mixture(betas, alphas, start, votes, data.val_y, (1.0, 1.0))
    assert (beta, alpha) == expected
    assert score == pytest.approx(100 * rank(expected)[0])
    nothing = choose_mixture(betas, alphas, start[:0], votes, data.val_y[:0], (1.0, 7.0))
    assert nothing[:2] == (1.0, 7.0)
    assert math.isnan(nothing[2])


def test_ape_criterion_pair_by_pair():
    data, weights = problem(), (0.7, 0.3)
    members = [torch.cat([data.w[i : i + 1], data.x[data.y == i]]) for i in range(C)]
    total, pairs = torch.zeros(D), 0
    for i in range(C):
        for j in range(C):
            if i != j:
                for a in members[i]:
                    for b in members[j]:
                        total, pairs = total + a * b, pairs + 1
    expected = weights[1] * data.w.var(0) - weights[0] * total / pairs
    found = ape.criterion(data.w, data.x, data.y, weights)
    torch.testing.assert_close(found.float(), expected, atol=1e-6, rtol=1e-4)
    assert ape.strongest(torch.tensor([1.0, 3.0, 2.0]), 0.7).tolist() == [1, 2]


def test_ape_logits_one_by_one():
    data = problem(val=0)
    rows = ape.strongest(ape.criterion(data.w, data.x, data.y, (0.7, 0.3)), 700 / 1024)
    keys, w, x = (F.normalize(v[:, rows], dim=-1) for v in (data.x, data.w, data.x))
    expected = data.scale * data.x @ data.w.T
    for i in range(len(x)):
        for key, label in zip(keys, data.y):
            p = (key @ w.T).softmax(0)
            target = F.one_hot(label, C).float()
            bits = (target * torch.log2((target + 1e-6) / (p + 1e-6))).sum()
            expected[i, label] += 2.0 * torch.exp(-(1 - x[i] @ key)) * torch.exp(0.1 * bits)
    found = BASELINES["APE"].fit(data, 0).logits(data.x, data.classes)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_ape_t_moves_text_and_keys_of_a_class_together():
    data, rows = problem(), torch.tensor([1, 4])
    residual = unit(C, 2, seed=8)
    keys, w = ape.residual_cache(data, rows, residual)
    for i in range(C):
        torch.testing.assert_close((w - data.w)[i, rows], residual[i])
        for key, x in zip(keys[data.y == i], data.x[data.y == i]):
            torch.testing.assert_close((key - x)[rows], residual[i])
    assert (keys - data.x)[:, [0, 2, 3]].abs().max() == 0


def test_proker_is_the_closed_form_of_its_authors():
    data, beta, ridge = problem(val=0), *proker.fixed_rule(SHOTS)
    kernel = torch.tensor([[math.exp(-beta * (1 - float(a @ b))) for b in data.x] for a in data.x])
    target = F.one_hot(data.y, C).float() - data.x @ data.w.T
    z = torch.linalg.solve(kernel / ridge + torch.eye(len(data.x)), target)
    fitted = BASELINES["ProKeR"].fit(data, 0)
    expected = data.scale * (data.x @ data.w.T + kernel @ z)
    found = fitted.logits(data.x, data.classes)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)
    assert fitted.chosen["beta"] == 1.5
    assert fitted.chosen["lambda"] == 0.05


def test_proker_chooses_what_a_full_search_would():
    data = problem(val=8)
    fitted = BASELINES["ProKeR"].fit(data, 0)
    target = F.one_hot(data.y, C).float() - data.x @ data.w.T

    def score(beta: float, ridge: float) -> float:
        z = proker.coefficients(data.x, target, beta, ridge)
        logits = data.val_x @ data.w.T + proker.kernel(data.val_x, data.x, beta) @ z
        return float((logits.argmax(1) == data.val_y).float().mean() * 100)

    best = max(score(b, r) for b in proker._BETAS for r in proker._LAMBDAS)
    assert fitted.chosen["validation accuracy"] == pytest.approx(best)
    assert score(fitted.chosen["beta"], fitted.chosen["lambda"]) == pytest.approx(best)


@pytest.mark.parametrize("n", [7, 12, 13])
def test_blocked_solution_equals_the_direct_one(n, monkeypatch):
    x, right = unit(n, 4, seed=1), unit(n, 3, seed=2)
    direct = proker.coefficients(x, right, 2.0, 0.1)
    system = proker.kernel(x, x, 2.0) / 0.1 + torch.eye(n)
    blocked = solve_blocked(lambda rows, columns: system[rows, columns].clone(), n, right, block=4)
    torch.testing.assert_close(blocked, direct, rtol=1e-3, atol=1e-4)
    monkeypatch.setattr(proker, "_DIRECT", 0)
    torch.testing.assert_close(
        proker.coefficients(x, right, 2.0, 0.1), direct, rtol=1e-3, atol=1e-4
    )


def test_timo_weights_of_prompts_by_hand():
    data = problem()
    scores = timo.fit_scores(data.prompts, data.mask, data.x, data.y)
    text = timo.guided_text(data.prompts, scores, 50.0)
    for i in range(C):
        some = int(data.mask[i].sum())
        image = F.normalize(data.x[data.y == i].mean(0), dim=0)
        fit = data.prompts[i, :some] @ image
        torch.testing.assert_close(scores[i, :some], fit)
        weight = (50 * fit / fit.norm()).softmax(0)
        torch.testing.assert_close(text[i], F.normalize(weight @ data.prompts[i, :some], dim=0))


def test_timo_is_a_gaussian_classifier_of_images_and_scaled_texts():
    data = problem(val=0, shots=1)
    data = replace(data, mask=torch.ones_like(data.mask), prompts=unit(C, K, D, seed=6))
    fitted = BASELINES["TIMO"].fit(data, 0)
    data = timo.with_template(data)
    assert torch.equal(data.prompts[:, 0], data.w)
    scores = timo.fit_scores(data.prompts, data.mask, data.x, data.y)
    x, y = data.x.repeat(10, 1), data.y.repeat(10)
    x = torch.cat([(data.prompts * scores[..., None]).reshape(-1, D), x]).double()
    y = torch.cat([torch.arange(C).repeat_interleave(K + 1), y])
    means = torch.stack([x[y == i].mean(0) for i in range(C)])
    centred = torch.cat([x[y == i] - means[i] for i in range(C)])
    cov = centred.T.cov()
    precision = D * torch.linalg.pinv((len(x) - 1) * cov + cov.trace() * torch.eye(D).double())
    images = unit(9, D, seed=5).double()
    gauss = (
        images @ (means @ precision).T - torch.einsum("nd,de,ne->n", means, precision, means) / 2
    )
    text = timo.guided_text(data.prompts, scores, 50.0).double()
    expected = (1000 * images @ text.T + gauss) * data.scale / 1000
    found = fitted.logits(images.float(), data.classes).double()
    shift = (expected - found).mean(1, keepdim=True)  # scores are relative to the average image
    torch.testing.assert_close(found + shift, expected, rtol=1e-3, atol=1e-3)


def test_timo_begins_again_with_the_best_text_where_a_class_has_fewer():
    data = problem(val=0)  # the first class has one prompt fewer
    trial = timo._Trial(data, data.x, data.y, data.x[:0], data.y[:0])
    found = trial.discriminants([2, 2 * K])
    moments = trial.images
    for i in range(C):
        some = int(data.mask[i].sum())
        order = trial.scores[i, :some].argsort(descending=True)
        for position in range(2 * K):
            j = int(order[position % some])
            text = trial.scores[i, j] * data.prompts[i, j]
            moments = moments.plus(text[None], torch.tensor([i]))
    expected = moments.discriminant(data.x.mean(0))
    torch.testing.assert_close(found[1].weight, expected.weight, rtol=1e-3, atol=1e-3)


def test_timo_takes_the_first_of_equals():
    y = torch.tensor([0, 1])
    logits = {0: torch.eye(2).flip(0), 1: torch.eye(2), 2: 9 * torch.eye(2)}
    assert timo.first_best([0, 1, 2], logits.__getitem__, y, 0) == (1, 100.0)
    assert timo.first_best([0, 1, 2], logits.__getitem__, y[:0], 2)[0] == 2


def test_uncertainty_is_low_where_one_class_stands_out():
    logits = torch.tensor([[20.0, 0.0, 0.0, 0.0], [0.1, 0.0, 0.1, 0.0]])
    sure, unsure = amu_tuning.uncertainty(logits)[:, 0].tolist()
    p = logits[0].softmax(0)
    z = (p - p.mean()) / p.std()
    assert sure == pytest.approx(float((z**4).mean() / 250) ** -0.4, rel=1e-4)
    assert sure < unsure


def test_amu_standardises_each_image_and_survives_equal_logits():
    found = amu_tuning.standardised(torch.tensor([[1.0, 2.0, 6.0], [3.0, 3.0, 3.0]]))
    spread = math.sqrt((4 + 1 + 9) / 2)
    torch.testing.assert_close(found[0], torch.tensor([-2.0, -1.0, 3.0]) / spread)
    assert found[1].tolist() == [0.0, 0.0, 0.0]
