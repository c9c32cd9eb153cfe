"""Training: exact resume, seeds, controls, faults, saving; on small problems with known answers."""

from __future__ import annotations

import math
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from fakes import unit
from safetensors.torch import save_file
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from aape.adapter.baselines.optimise import leaf, minimise
from aape.adapter.method.adapter import FittedAdapter, staged_table
from aape.adapter.method.descent import Descent
from aape.adapter.method.hold_out import Trust, restrict
from aape.adapter.method.problem import ClassSet, FewShot
from aape.adapter.method.query import fit_query
from aape.adapter.method.recipe import LITERAL, STAGED, Recipe, controlled, load_recipe
from aape.adapter.method.seeds import Seeds
from aape.adapter.method.terms import AsQuery
from aape.adapter.method.train import fit
from aape.pipeline.errors import UserError

C, D, SHOTS = 4, 16, 6
SHORT = STAGED.model_copy(update={"epochs": 3, "batch_size": 8})
SHORT_LITERAL = LITERAL.model_copy(update={"epochs": 3, "batch_size": 8})


def problem(validation: bool = True, views: bool = False) -> FewShot:
    centres = unit(C, D, seed=0)
    w = F.normalize(centres + 1.2 * unit(C, D, seed=1), dim=-1)
    y = torch.arange(C).repeat(SHOTS)
    x = F.normalize(centres[y] + 0.6 * unit(len(y), D, seed=2), dim=-1)
    prompts = F.normalize(w[:, None] + 0.5 * unit(C, 5, D, seed=3), dim=-1)
    mask = torch.arange(5).expand(C, 5) < torch.tensor([5, 2, 4, 1])[:, None]
    val_y = torch.arange(C).repeat(2)
    val_x = F.normalize(centres[val_y] + 0.6 * unit(len(val_y), D, seed=4), dim=-1)
    if not validation:
        val_x, val_y = val_x[:0], val_y[:0]
    classes = ClassSet(w, w, F.normalize(prompts.mean(1), dim=-1), None, torch.arange(C))
    extra = F.normalize(x[:, None] + 0.2 * unit(len(x), 3, D, seed=5), dim=-1) if views else None
    return FewShot(x, y, extra, classes, prompts * mask[..., None], mask, val_x, val_y, 20.0, SHOTS)


class Killed(Exception):
    """Stands for a kill between two epochs."""


@pytest.mark.parametrize(
    "recipe",
    [
        SHORT,
        SHORT_LITERAL,
        SHORT.model_copy(update={"views": 3}),
        SHORT.model_copy(
            update={"aggregator": STAGED.aggregator.model_copy(update={"kind": "random"})}
        ),
    ],
    ids=["default", "literal", "views", "random aggregator"],
)
def test_a_killed_run_continues_to_the_same_bits(tmp_path, recipe):
    data = problem(views=bool(recipe.views))
    whole = fit(data, recipe, 3)
    path = tmp_path / "run.checkpoint"

    def kill(record: dict[str, float]) -> None:
        if record.get("epoch") == 3:
            raise Killed

    with pytest.raises(Killed):
        fit(data, recipe, 3, checkpoint=path, on_epoch=kill)
    assert path.exists()
    records: list[dict[str, float]] = []
    resumed = fit(data, recipe, 3, checkpoint=path, on_epoch=records.append)
    assert records[0] == {"resumed_at_epoch": 2}
    assert [r["epoch"] for r in records[1:]] == [3]
    for name, tensor in whole.tensors().items():
        assert torch.equal(tensor, resumed.tensors()[name]), name
    assert whole.history == resumed.history
    assert whole.table == resumed.table
    assert not path.exists()


def test_a_checkpoint_of_another_run_is_not_used(tmp_path):
    path = tmp_path / "run.checkpoint"

    def kill(record: dict[str, float]) -> None:
        if record["epoch"] == 2:
            raise Killed

    with pytest.raises(Killed):
        fit(problem(), SHORT, 3, checkpoint=path, on_epoch=kill)
    fresh = fit(problem(), SHORT, 4)
    other = fit(problem(), SHORT, 4, checkpoint=path)
    assert torch.equal(fresh.tensors()["head.out.weight"], other.tensors()["head.out.weight"])


@pytest.mark.parametrize("damage", ["cut", "flip", "another version"])
def test_a_damaged_checkpoint_is_not_used(tmp_path, damage, capsys):
    path = tmp_path / "run.checkpoint"

    def kill(record: dict[str, float]) -> None:
        if record.get("epoch") == 3:
            raise Killed

    with pytest.raises(Killed):
        fit(problem(), SHORT, 0, checkpoint=path, on_epoch=kill)
    content = path.read_bytes()
    flipped = content[:-9] + bytes([content[-9] ^ 1]) + content[-8:]  # one bit of a weight
    path.write_bytes({"cut": content[:-9], "flip": flipped}.get(damage, content))
    if damage == "another version":
        save_file({"adapter.w": torch.ones(2)}, path, metadata={"key": "x", "history": "[]"})
    found = fit(problem(), SHORT, 0, checkpoint=path)
    assert found.history == fit(problem(), SHORT, 0).history
    assert ("is damaged" in capsys.readouterr().err) == (damage != "another version")


def test_seeds_are_separate_and_zero_is_one():
    def head(seeds: Seeds) -> Tensor:
        return fit(problem(), SHORT, seeds).tensors()["head.from_text.weight"]

    zero = head(Seeds(0, 0))
    assert torch.equal(zero, head(Seeds(0, 0)))
    assert not torch.equal(zero, head(Seeds(1, 0)))
    assert not torch.equal(zero, head(Seeds(0, 1)))
    before = torch.get_rng_state()
    fit(problem(), SHORT, 0)
    assert torch.equal(before, torch.get_rng_state())  # callers' randomness is left alone


def give_query(fitted: FittedAdapter, data: FewShot, head: float, share: float) -> AsQuery:
    """Put a query into an adapter, whatever held-out classes said."""
    query = AsQuery(fit_query(data.x, data.w[data.y], data.w, 1.0), data.scale)
    kept = [term for term in fitted.terms if term.name != "query"]
    fitted.terms = [*kept[:2], query, *kept[2:]]  # where loading puts it
    fitted.table = staged_table(fitted.terms, head, share, 0.1)
    return query


@pytest.mark.parametrize("recipe", [SHORT, SHORT_LITERAL], ids=["staged", "literal"])
def test_save_and_load_predict_the_same(recipe):
    data = problem()
    fitted = fit(data, recipe, 0)
    if recipe is SHORT:
        give_query(fitted, data, head=0.5, share=0.5)
    again = FittedAdapter.load(fitted.tensors(), fitted.config())
    new = ClassSet(*[unit(2, D, seed=8)] * 4, torch.tensor([-1, 2]))
    for classes in (data.classes, new):
        torch.testing.assert_close(
            fitted.logits(data.x, classes), again.logits(data.x, classes), rtol=0, atol=0
        )


def test_default_learns_and_new_classes_get_neither_residual_nor_discriminant():
    data = problem()
    recipe = STAGED.model_copy(update={"epochs": 15, "batch_size": 8, "lr": 3e-3})
    fitted = fit(data, recipe, 0)
    logits = fitted.logits(data.x, data.classes)
    start = data.scale * data.x @ data.w.T
    assert F.cross_entropy(logits, data.y) < F.cross_entropy(start, data.y)
    new = ClassSet(*[unit(3, D, seed=8)] * 4, torch.tensor([-1, -1, -1]))
    general = fitted.term("head")(data.x, new)
    zero_shot = data.scale * data.x @ new.template.T
    fitted.terms = [term for term in fitted.terms if term.name != "query"]
    for share in (0.0, 0.25, 1.0):
        fitted.table = staged_table(fitted.terms, share, 0.5, 0.1)
        expected = (1 - share) * zero_shot + share * general
        torch.testing.assert_close(fitted.logits(data.x, new), expected)
    query = give_query(fitted, data, head=0.0, share=0.25)
    expected = 0.75 * zero_shot + 0.25 * query(data.x, new)
    torch.testing.assert_close(fitted.logits(data.x, new), expected)


def test_zero_shot_says_seen_or_new_and_all_terms_which_class():
    data = problem()
    fitted = fit(data, SHORT, 0)
    seen = torch.tensor([True, True, True, True, False, False])
    both = ClassSet(
        *[torch.cat([data.w, unit(2, D, seed=8)])] * 4, torch.tensor([0, 1, 2, 3, -1, -1])
    )
    found = fitted.logits(data.x, both)
    zero_shot = (data.scale * data.x @ both.template.T).softmax(1)
    torch.testing.assert_close(found.softmax(1)[:, seen].sum(1), zero_shot[:, seen].sum(1))
    for group in (seen, ~seen):
        alone = ClassSet(*[both.template[group]] * 4, both.seen[group])
        torch.testing.assert_close(
            found[:, group].softmax(1), fitted.logits(data.x, alone).softmax(1)
        )
    fitted.recipe = SHORT.model_copy(update={"zero_shot_groups": False})
    assert not torch.allclose(fitted.logits(data.x, both).softmax(1)[:, seen].sum(1),
                              zero_shot[:, seen].sum(1))  # fmt: skip


@pytest.mark.slow
def test_held_out_classes_refuse_a_head_that_forgets_new_ones():
    data = problem()
    forgetful = SHORT.model_copy(
        update={"head": "literal", "epochs": 30, "lr": 1e-2, "zero_shot": 0.0}
    )
    assert fit(data, forgetful, 0).facts["trust"]["head"] < 1
    trusting = fit(data, forgetful.model_copy(update={"hold_out": 0}), 0)
    assert trusting.facts["trust"] == asdict(Trust())
    part = restrict(data, torch.tensor([1, 3]))
    assert part.y.unique().tolist() == [0, 1]
    torch.testing.assert_close(part.x[part.y == 1], data.x[data.y == 3])
    torch.testing.assert_close(part.prompts[1], data.prompts[3])
    assert not len(part.val_y)


def test_seen_terms_add_up():
    data = problem()
    fitted = fit(data, controlled(SHORT, "no-query"), 0)
    fitted.table = staged_table(fitted.terms, 1.0, 0.0, 0.7)
    head, residual, gaussian = (fitted.term(name) for name in ("head", "residual", "gaussian"))
    special = head.adapter.special(data.x, data.w)
    torch.testing.assert_close(residual(data.x, data.classes), special)
    general = head(data.x, data.classes)
    expected = (general + special) / 2 + 0.7 * gaussian.discriminant(data.x)
    torch.testing.assert_close(fitted.logits(data.x, data.classes), expected)
    backwards = replace(data.classes, seen=torch.tensor([3, 2, 1, 0]), template=data.w.flip(0))
    torch.testing.assert_close(
        fitted.logits(data.x, backwards), expected.flip(1), atol=1e-4, rtol=1e-4
    )


def test_literal_loss_is_the_equation():
    data = problem()
    fitted = fit(data, SHORT_LITERAL.model_copy(update={"epochs": 1, "lr": 1e-12}), 0)
    record = fitted.history[0]
    assert set(record) == {"epoch", "cross_entropy", "distillation", "reward"}
    logits = fitted.term("head")(data.x, data.classes)
    assert record["cross_entropy"] == pytest.approx(
        float(F.cross_entropy(logits, data.y).detach()), rel=1e-4
    )


def test_controls():
    data = problem()
    shuffled = data.with_control("shuffled", 0)
    for i in range(C):
        same = [j for j in range(C) if torch.equal(shuffled.prompts[i], data.prompts[j])]
        assert same
        assert same != [i]
        assert torch.equal(shuffled.mask[i], data.mask[same[0]])
    template = data.with_control("template", 0)
    torch.testing.assert_close(template.prompts[:, 0], data.w)
    assert template.mask.shape == (C, 1)
    with pytest.raises(UserError, match="random words"):
        data.with_control("waffle", 0)
    assert controlled(STAGED, "no-distillation").distillation == 0
    no_generator = fit(data, controlled(SHORT, "no-generator"), 0)
    assert no_generator.term("head").adapter.generator is None
    assert "distillation" not in fit(data, controlled(SHORT, "no-distillation"), 0).history[0]
    for control in ("no-query", "no-distillation", "no-generator"):
        assert fit(data, controlled(SHORT, control), 0).term("query") is None
    bare = fit(data, controlled(SHORT, "no-seen-terms"), 0)
    assert bare.term("residual") is None
    assert bare.term("gaussian") is None


def test_prompts_reach_the_generator_only_through_the_distillation():
    data = problem()
    shuffled = data.with_control("shuffled", 0)
    silent = controlled(SHORT, "no-distillation")
    name = "generator.outer.weight"
    assert torch.equal(
        fit(data, silent, 0).tensors()[name], fit(shuffled, silent, 0).tensors()[name]
    )
    assert not torch.equal(
        fit(data, SHORT, 0).tensors()[name], fit(shuffled, SHORT, 0).tensors()[name]
    )


def test_loss_that_is_not_finite_stops_with_its_cause():
    data = problem()
    broken = replace(data, x=data.x.clone())
    broken.x[3, 2] = float("nan")
    with pytest.raises(UserError, match=r"cross_entropy.*not finite in epoch 1") as caught:
        fit(broken, SHORT, 0)
    assert "learning rate" in str(caught.value)


def test_weight_of_the_discriminant_without_validation():
    many = fit(problem(validation=False), SHORT, 0)
    assert many.facts["alpha"] in STAGED.seen.alphas
    assert not np.isnan(many.chosen["validation accuracy"])
    one = problem(validation=False)
    one = replace(one, x=one.x[:C], y=one.y[:C], shots=1)
    assert fit(one, SHORT, 0).facts["alpha"] == STAGED.seen.fallback_alpha


@pytest.mark.parametrize("kind", ["attention", "mean", "random", "mlp"])
@pytest.mark.parametrize("query", ["literal", "image", "free"])
def test_every_choice_of_a_recipe_trains(kind, query):
    aggregator = STAGED.aggregator.model_copy(update={"kind": kind, "query": query, "prompts": 2})
    recipe = SHORT.model_copy(update={"aggregator": aggregator, "epochs": 1})
    assert fit(problem(), recipe, 0).history[0]["distillation"] > 0


def test_epochs_follow_coop_where_the_recipe_says_so():
    assert [LITERAL.epochs_for(shots, 50) for shots in (16, 8, 4, 2, 1)] == [200, 200, 100, 100, 50]
    assert LITERAL.epochs_for(16, 1000) == 50
    assert STAGED.epochs_for(1, 1000) == STAGED.epochs


def test_recipes_are_files_and_names(tmp_path: Path):
    path = tmp_path / "mine.yaml"
    path.write_text(LITERAL.to_yaml())
    assert load_recipe(str(path)) == LITERAL
    assert load_recipe("staged") == Recipe(name="staged")
    with pytest.raises(UserError, match="Did you mean 'literal'"):
        load_recipe("litteral")
    path.write_text("head: residul\n")
    with pytest.raises(UserError, match="head"):
        load_recipe(str(path))


class _Waits(TorchDispatchMode):
    """Counts what makes a host wait for its device: a value is read, or a size depends on one."""

    NAMES = ("_local_scalar_dense", "nonzero", "masked_select")

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        if name in self.NAMES:
            self.found.append(name)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("recipe", [SHORT, SHORT_LITERAL], ids=["staged", "literal"])
def test_no_step_of_an_epoch_waits_for_the_device(recipe):
    trainer = Descent(problem(), recipe, Seeds(0, 0))
    with _Waits() as waits:
        trainer.run_epoch()
    assert not waits.found


@pytest.mark.parametrize("recipe", [SHORT, SHORT_LITERAL], ids=["staged", "literal"])
def test_a_step_in_shapes_that_can_be_recorded_is_the_same_step(recipe):
    """A GPU records a step that aggregates an image, not a class: see recorded_step.py."""
    torch.set_default_dtype(torch.float64)
    try:
        data = replace(problem(), **{n: getattr(problem(), n).double() for n in ("x", "prompts")})
        texts = replace(data.classes, template=data.classes.template.double())
        data = replace(data, classes=texts)
        usual, fixed = Descent(data, recipe, Seeds(3, 4)), Descent(data, recipe, Seeds(3, 4))
        fixed._step = lambda rows: fixed._descend(fixed._losses(rows, None, None))
        for _ in range(2):
            expected, found = usual.run_epoch(), fixed.run_epoch()
            assert found == pytest.approx(expected, rel=1e-9)
    finally:
        torch.set_default_dtype(torch.float32)


def test_baselines_ask_for_the_loss_once_an_epoch():
    weight = leaf(torch.zeros(D, C))
    data = problem()
    optimiser = torch.optim.SGD([weight], lr=0.1)
    with _Waits() as waits:
        minimise([weight], lambda rows: F.cross_entropy(data.x[rows] @ weight, data.y[rows]),
                 len(data.x), optimiser=optimiser, epochs=3, batch_size=4, seed=0)  # fmt: skip
    assert len(waits.found) == 3
    assert F.cross_entropy(data.x @ weight, data.y) < 1.3  # log 4 before


def test_a_loss_that_is_not_finite_is_named_by_its_step():
    data = problem()
    with pytest.raises(UserError, match=r"cross_entropy.* epoch 1, step 1"):
        fit(replace(data, x=data.x * math.nan), SHORT, Seeds(0, 0))
