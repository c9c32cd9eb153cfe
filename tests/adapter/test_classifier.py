"""The estimator and the module below it: arrays in, labels out."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest
import torch
from fakes import unit_rows
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.estimator_checks import estimator_checks_generator

from aape.adapter.arrays import labels_from_json, labels_to_json
from aape.adapter.classifier import Classifier
from aape.adapter.method.recipe import RECIPES, ConvexRecipe
from aape.adapter.run import RunFolder
from aape.adapter.term_sum import Adapter
from aape.pipeline.errors import BadValue, UserError
from aape.pipeline.store import read_record, write_record

NAMES = ["owl", "cat", "elk", "dog"]  # not sorted
D = 16


def problem(shots: int = 5, classes: int = 4) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Images around texts that are roughly right: x (n, d), row numbers (n,), texts (c, d)."""
    rng = np.random.default_rng(3)
    w = unit_rows(rng.normal(size=(classes, D)))
    rows = np.tile(np.arange(classes), shots)
    return unit_rows(w[rows] + 0.25 * rng.normal(size=(len(rows), D))), rows, w


# With no texts: scikit-learn's own data has none. None of its checks is expected to fail; the one
# on array-API input skips itself unless SCIPY_ARRAY_API is set.
@pytest.mark.parametrize(
    ("estimator", "check"),
    list(estimator_checks_generator(Classifier(device="cpu"))),
    ids=lambda value: getattr(getattr(value, "func", None), "__name__", "")[:60] or None,
)
def test_manners_of_scikit_learn(estimator, check):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check(estimator)


def test_labels_are_strings_and_rows_of_texts_are_in_any_order():
    x, rows, w = problem()
    y = np.array(NAMES)[rows]
    model = Classifier(classes=NAMES, device="cpu").fit(x, y, class_text=w)
    assert model.classes_.tolist() == sorted(NAMES)
    assert model.n_features_in_ == D
    assert model.score(x, y) == 1.0
    assert model.predict(w).tolist() == NAMES
    in_order = w[np.argsort(NAMES)]
    same = Classifier(device="cpu").fit(x, y, class_text=in_order)
    np.testing.assert_allclose(model.predict_proba(x), same.predict_proba(x), atol=1e-6)


def test_numbers_may_name_rows_of_texts():
    x, rows, w = problem()
    some = rows != 1
    model = Classifier(device="cpu").fit(x[some], rows[some], class_text=w)
    assert model.classes_.tolist() == [0, 2, 3]
    assert model.predict(w[[3, 0]]).tolist() == [3, 0]


@pytest.mark.parametrize("kind", [np.asarray, torch.as_tensor, lambda value: value.tolist()])
def test_arrays_tensors_and_lists_say_the_same(kind):
    x, rows, w = problem()
    prompts = unit_rows(w[:, None] + 0.1)
    expected = Classifier(device="cpu").fit(x, rows, w, prompts).predict_proba(x)
    found = Classifier(device="cpu").fit(kind(x), kind(rows), kind(w), kind(prompts))
    np.testing.assert_allclose(found.predict_proba(kind(x)), expected, atol=1e-6)


def test_descriptions_of_uneven_number_count_alike():
    x, rows, w = problem()
    right = unit_rows(w + 0.05)
    bad = unit_rows(np.random.default_rng(0).normal(size=w.shape))
    lists = [np.repeat(right[i : i + 1], i + 1, axis=0) for i in range(4)]
    model = Classifier(device="cpu").fit(x, rows, bad, prompts=lists)
    even = Classifier(device="cpu").fit(x, rows, bad, prompts=right[:, None])
    np.testing.assert_allclose(model.predict_proba(x), even.predict_proba(x), atol=1e-5)
    assert model.adapter_.class_text.share > 0.4, "texts without knowledge are left"


def test_every_recipe_trains_and_is_the_same_after_loading(tmp_path):
    x, rows, w = problem()
    y = np.array(NAMES)[rows]
    for recipe in RECIPES:
        model = Classifier(recipe, classes=NAMES, device="cpu").fit(x, y, w, w[:, None])
        again = Classifier.load(model.save(tmp_path / recipe), device="cpu")
        assert again.classes_.tolist() == model.classes_.tolist()
        assert again.classes_.dtype == model.classes_.dtype
        np.testing.assert_array_equal(again.predict_proba(x), model.predict_proba(x))
        np.testing.assert_array_equal(again.decision_function(w), model.decision_function(w))


def test_other_classes_have_no_terms_of_their_own_and_trained_ones_keep_theirs():
    x, rows, w = problem(classes=6)
    old = rows < 4
    model = Classifier(device="cpu").fit(x[old], rows[old], w[:4])
    both = model.predict_proba(x, class_text=w, classes=list(range(6)))
    assert both.shape == (len(x), 6)
    np.testing.assert_allclose(both.sum(1), 1, atol=1e-5)
    assert model.score(x, rows, class_text=w, classes=range(6)) > 0.9
    # within the trained group nothing changes, whatever text is passed for them
    wrong = np.concatenate([w[[1, 2, 3, 0]], w[4:]])
    within = model.predict_proba(x, class_text=wrong, classes=list(range(6)))[:, :4]
    np.testing.assert_allclose(
        within / within.sum(1, keepdims=True), model.predict_proba(x), atol=1e-4
    )
    assert model.predict(w[4:], class_text=w[4:], classes=["new", "newer"]).tolist() == [
        "new",
        "newer",
    ]
    assert set(model.predict(x, classes=[0, 3]).tolist()) <= {0, 3}


def test_two_classes_have_one_decision_value():
    x, rows, w = problem(classes=2)
    model = Classifier(device="cpu").fit(x, rows, w)
    values = model.decision_function(x)
    assert values.shape == (len(x),)
    np.testing.assert_array_equal(values > 0, model.predict(x) == 1)


def test_tools_of_scikit_learn_carry_the_texts():
    x, rows, w = problem(shots=6)
    model = Classifier(class_text=w, device="cpu")
    assert cross_val_score(model, x, rows, cv=2).mean() > 0.9
    search = GridSearchCV(model, {"recipe": ["default", "literal"], "scale": [20, 100]}, cv=2)
    search.fit(x, rows)
    assert set(search.best_params_) == {"recipe", "scale"}
    piped = make_pipeline(FunctionTransformer(lambda v: v * 3), clone(model)).fit(x, rows)
    np.testing.assert_allclose(
        piped.predict_proba(x), clone(model).fit(x, rows).predict_proba(x), atol=1e-5
    )  # unit length again


def test_a_recipe_of_ones_own():
    x, rows, w = problem()
    mine = RECIPES["default"].model_copy(
        update={"name": "mine", "convex": ConvexRecipe(own=[0.0], shared=[0.0], new_shared=[])}
    )
    model = Classifier(mine, device="cpu").fit(x, rows, w)
    assert set(model.adapter_.table) == {"zero-shot"}
    assert clone(model).recipe is not None


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"class_text": np.ones((4, 3))}, "Embed names and images with the same encoder"),
        ({"class_text": np.ones((3, D))}, "y has 4 classes, class_text has 3 rows"),
        ({"class_text": np.full((4, D), np.nan)}, "class_text has values that are not finite"),
        ({"class_text": None, "prompts": np.ones((4, 1, D))}, "prompts without class_text"),
        ({"prompts": np.ones((3, 2, D))}, "prompts are for 3 classes"),
        ({"prompts": [np.ones((2, D - 1))] * 4}, "prompts are for 4 classes of shapes"),
        ({"val_x": np.ones((1, D)), "val_y": [9]}, "val_y has labels that y has not"),
    ],
)
def test_what_does_not_fit_is_a_sentence(changes, said):
    x, rows, w = problem()
    with pytest.raises(ValueError, match=said) as caught:
        Classifier(device="cpu").fit(x, rows, **{"class_text": w} | changes)
    assert isinstance(caught.value, UserError)


def test_more_that_does_not_fit(tmp_path):
    x, rows, w = problem()
    with pytest.raises(NotFittedError):
        Classifier().predict(x)
    with pytest.raises(ValueError, match="needs class_text"):
        Classifier("literal").fit(x, rows)
    with pytest.raises(ValueError, match="width 15 cannot be spread over 8 heads"):
        Classifier("staged").fit(x[:, 1:], rows, w[:, 1:])
    with pytest.raises(UserError, match="Unknown recipe 'defualt'"):
        Classifier("defualt").fit(x, rows, w)
    with pytest.raises(ValueError, match="Labels without a class text: \\[3\\]"):
        Classifier(classes=[0, 1, 2], class_text=w[:3]).fit(x, rows)
    model = Classifier(device="cpu").fit(x, rows, w)
    with pytest.raises(ValueError, match="not trained: \\[7\\]"):
        model.predict(x, classes=[7])
    with pytest.raises(ValueError, match="as many different classes"):
        model.predict(x, class_text=w, classes=[1, 1, 2, 3])
    with pytest.raises(UserError, match="no trained adapter"):
        Classifier.load(tmp_path)
    RunFolder(tmp_path).save_weights({"a": torch.zeros(1)}, {"kind": "captions"})
    with pytest.raises(UserError, match="no classifier"):
        Classifier.load(tmp_path)


# --- the module below it ---


@pytest.mark.parametrize("recipe", list(RECIPES))
def test_module_and_estimator_are_one(recipe):
    x, rows, w = problem()
    adapter = Adapter.fit(x, rows, w, recipe=recipe)
    model = Classifier(recipe, device="cpu").fit(x, rows, w)
    logits = adapter(torch.from_numpy(x))
    np.testing.assert_allclose(logits.softmax(-1).detach(), model.predict_proba(x), atol=1e-5)
    assert adapter.double().logits(torch.from_numpy(x).double()).dtype == torch.float64


def test_gradients_reach_a_term_of_ones_own():
    class Bias(torch.nn.Module):
        name = "bias"

        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(D))

        def __call__(self, x, classes):
            return classes.template @ self.weight + x.new_zeros(len(x), 1)

    x, rows, w = problem()
    adapter = Adapter.fit(x, rows, w)
    before = adapter.logits(torch.from_numpy(x))
    adapter.add(Bias(), seen=1.0, new=1.0)
    torch.testing.assert_close(adapter.logits(torch.from_numpy(x)), before)
    weight = adapter.terms[-1].weight
    assert any(parameter is weight for parameter in adapter.parameters())
    optimiser = torch.optim.SGD([weight], lr=1.0)
    for texts in (None, adapter.classes(torch.from_numpy(w[:2]))):
        optimiser.zero_grad()
        adapter.logits(torch.from_numpy(x), texts)[:, 0].sum().neg().backward()
        assert weight.grad.norm() > 0
        optimiser.step()
    assert (adapter.logits(torch.from_numpy(x))[:, 0] > before[:, 0]).all()
    with pytest.raises(ValueError, match="has a term 'bias' already"):
        adapter.add(Bias())
    for no_term in (lambda x, classes: x, object()):
        with pytest.raises(ValueError, match="is no term"):
            adapter.add(no_term)


@pytest.mark.parametrize("recipe", ["default", "staged"])
def test_what_terms_learned_trains_on_and_is_kept(recipe, tmp_path):
    x, rows, w = map(torch.as_tensor, problem())
    x = x + 0.5 * torch.roll(w, 1, 0)[rows]  # photos that lie apart from their texts
    adapter = Adapter.fit(x, rows, w, recipe=recipe)
    before, other_labels = adapter.logits(x), (rows + 1) % 4
    optimiser = torch.optim.SGD(adapter.parameters(), lr=1e-3)
    for _ in range(3):
        optimiser.zero_grad()
        loss = torch.nn.functional.cross_entropy(adapter.logits(x), other_labels)
        loss.backward()
        optimiser.step()
    assert loss < torch.nn.functional.cross_entropy(before, other_labels)
    torch.save(adapter.state_dict(), tmp_path / "state.pt")
    other = Adapter.fit(x, rows, w, recipe=recipe)
    torch.testing.assert_close(other.logits(x), before)
    other.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    torch.testing.assert_close(other.logits(x), adapter.logits(x))
    assert not any(value.requires_grad for value in other.fitted.tensors().values())


def test_module_reads_what_the_estimator_saved(tmp_path):
    x, rows, w = problem()
    model = Classifier(device="cpu").fit(x, rows, w)
    adapter = Adapter.load(model.save(tmp_path / "kept"))
    shares = adapter(torch.from_numpy(x)).softmax(-1)
    np.testing.assert_allclose(shares, model.predict_proba(x), atol=1e-6)


# --- what callers get wrong ---


def test_a_refit_that_fails_leaves_the_model_as_it_was():
    x, rows, w = problem()
    model = Classifier(device="cpu").fit(x, np.array(["a", "b", "c", "d"])[rows], w)
    answers = model.predict(x)
    with pytest.raises(ValueError, match="y has 3 classes"):
        model.fit(x, np.array(["u", "v", "w", "w"])[rows], w[:2])
    with pytest.raises(ValueError, match="needs at least two classes"):
        model.fit(x[:, :5], np.zeros(len(x)), w[:, :5])
    assert model.n_features_in_ == D
    np.testing.assert_array_equal(model.predict(x), answers)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": None}, "seed is None"), ({"seed": 1.5}, "seed is 1.5"), ({"seed": -1}, "seed is"),
        ({"scale": 0}, "scale is 0"), ({"scale": float("nan")}, "scale is nan"),
        ({"scale": None}, "scale is None"), ({"normalise": "no"}, "normalise is 'no'"),
        ({"classes": 3}, "classes is 3"), ({"classes": []}, "at least one"),
        ({"class_text": ["a", "b"]}, "class_text is no array of numbers"),
        ({"class_text": np.zeros((0, 8))}, "class_text has"),
        ({"class_text": np.ones((4, 8), complex)}, "complex"), ({"prompts": 5}, "prompts is 5"),
        ({"class_text": None, "classes": list("abcd")}, "classes without class_text"),
    ],
)  # fmt: skip
def test_odd_parameters_are_one_sentence(changes, message):
    x, rows, w = problem()
    with pytest.raises(ValueError, match=message):
        Classifier(**({"class_text": w, "device": "cpu"} | changes)).fit(x, rows)


def test_odd_arrays_are_read_or_refused():
    x, rows, w = problem()
    model = Classifier(class_text=w, device="cpu", seed=np.int64(3)).fit(x, rows)
    expected = model.predict_proba(x)
    tensor = torch.from_numpy(x).requires_grad_()
    for same in (tensor, list(tensor), x[::-1][::-1], x * 1e25):
        np.testing.assert_allclose(model.predict_proba(same), expected, atol=1e-5)
    assert model.predict_proba(tensor.bfloat16()).shape == expected.shape
    raw = Classifier(class_text=w[::-1], normalise=False, device="cpu").fit(x[:, ::-1], rows)
    assert raw.predict(x[:, ::-1]).shape == (len(x),)
    without = [[], *[w[i : i + 1] for i in range(1, 4)]]
    assert Classifier(class_text=w, prompts=without, device="cpu").fit(x, rows)
    with pytest.raises(ValueError, match="belong together"):
        model.fit(x, rows, val_x=x)
    for asked, message in (([], "at least one"), ([0, 0], "twice"), (2, "classes is 2")):
        with pytest.raises(ValueError, match=message):
            model.predict(x, classes=asked)
    with pytest.raises(ValueError, match="no row"):
        model.predict(x, class_text=np.zeros((0, D)))
    assert model.score(x, rows[:, None]) == model.score(x, rows)
    for wrong in ("cat", ["cat"], rows[:3]):
        with pytest.raises(ValueError, match=r"inconsistent|1d array|Expected|got an array"):
            model.score(x, wrong)


def test_a_saved_classifier_that_was_changed_is_one_sentence(tmp_path):
    x, rows, w = problem()
    folder = Classifier(class_text=w, device="cpu").fit(x, rows).save(tmp_path / "kept")
    path = folder / "adapter_config.json"
    sound = json.loads(path.read_text())
    del sound["sha256"]
    changes = [
        {"scale": -1}, {"scale": "x"}, {"class_text": 3}, {"table": [1]}, {"recipe": None},
        {"labels": {"dtype": "int64", "values": list("abcd")}}, {"table": {"zero-shot": 1}},
    ]  # fmt: skip
    for change in changes:
        path.write_text(json.dumps(sound | change))
        with pytest.raises(UserError):
            Classifier.load(folder)
    path.write_text("[" * 100_000)
    with pytest.raises(UserError, match="not valid JSON"):
        Classifier.load(folder)
    path.write_text(json.dumps(sound | {"seed": "x"}))
    assert Classifier.load(folder).seed == 0
    path.write_text('{"peft_type": "LORA"}')
    with pytest.raises(UserError, match="of another tool"):
        Classifier(class_text=w, device="cpu").fit(x, rows).save(folder)
    with pytest.raises(UserError, match="No folder is named"):
        Classifier(class_text=w, device="cpu").fit(x, rows).save("")


@pytest.mark.parametrize(
    "change",
    [
        {"labels": {"dtype": "int64", "values": ["a"]}},
        {"labels": {"dtype": "int64", "values": [[0], [1], [2], [3]]}},
        {"labels": {"dtype": ["x"], "values": [1]}},
        {"labels": None, "class_names": ["a"] * 4, "class_ids": 3},
        {"labels": None, "class_names": [["a"], "b", "c", "d"]},
        {"labels": None, "class_names": None},
    ],
)
def test_labels_that_are_none_are_one_sentence(tmp_path, change):
    x, rows, w = problem()
    folder = Classifier(device="cpu").fit(x, rows, w).save(tmp_path / "saved")
    place = folder / "adapter_config.json"
    write_record(place, read_record(place) | change)
    with pytest.raises(BadValue, match=r"labels that are none of a classifier|names no classes"):
        Classifier.load(folder, device="cpu")


def test_labels_of_classes_of_one_name_are_their_ids():
    about = {"class_names": ["crane", "crane"], "class_ids": [3, 7]}
    assert labels_from_json(about).tolist() == [3, 7]
    assert labels_from_json({"class_names": ["crane", "crane"]}).tolist() == [0, 1]
    kept = labels_to_json(np.array(["a", "b"], dtype=object))
    assert labels_from_json({"labels": kept}).dtype == object
