"""What joins the tables of a suite: averages, published averages, the order of aggregators."""

from __future__ import annotations

from aape.adapter.metrics.accuracy import harmonic_mean
from aape.adapter.results import MethodResult, Results
from aape.adapter.shots import Shots
from aape.adapter.suite.plan import SUITES
from aape.adapter.suite.summaries import aggregator_order, summaries

LITERAL = "ours (paper)"


def table(dataset: str, rows: dict[str, tuple[float, float]], shots: Shots = 16) -> Results:
    methods = [
        MethodResult(
            name,
            [{"seed": 1, "base": base, "new": new, "H": harmonic_mean(base, new)}],
            "ours" if number == 0 else "control",
        )
        for number, (name, (base, new)) in enumerate(rows.items())
    ]
    return Results(
        "classification", "base2new/1", dataset, "ViT-B-16-quickgelu/x@1",
        ["base", "new", "H"], methods, best="H",
        details={"shots": shots, "images_a_class": 100 if shots == "all" else shots},
    )  # fmt: skip


def ablation(dataset: str, mlp: float) -> Results:
    return table(
        dataset,
        {
            LITERAL: (80, 74),
            f"{LITERAL}, random-prompt": (70, 60),
            f"{LITERAL}, mean-prompt": (75, 65),
            f"{LITERAL}, mlp-prompt": (78, mlp),
        },
    )


def test_eleven_data_sets_have_an_average_with_the_published_ones_beside_it():
    tables = [table(f"set{i}", {"ours": (80 + i, 70 + i), "CLAP": (60, 50)}) for i in range(11)]
    (average,) = summaries([*tables, table("set0", {"ours": (1, 1)}, shots=4)])
    assert average.method("ours").seeds[0]["base"] == 85
    assert average.method("ours").seeds[0]["H"] == harmonic_mean(85, 75)
    assert average.method("AAPE (published)").seeds[0]["H"] == 80.97
    assert average.details["summary"] == "default-base2new-16"
    assert average.title == "average of 11 data sets: ours, base2new, 16 shots"


def test_the_title_of_an_average_says_the_shots_in_words():
    titles = {
        shots: summaries([table(name, {"ours": (80, 70)}, shots) for name in ("a", "b")])[0].title
        for shots in (1, "all")
    }
    assert titles[1].endswith("base2new, 1 shot")
    assert titles["all"].endswith("base2new, all training photos")


def test_the_order_of_aggregators_is_the_papers_and_a_note_says_whether_it_holds():
    order = aggregator_order([ablation("a", mlp=70), ablation("b", mlp=72)])
    assert order is not None
    names = [method.name for method in order.methods]
    assert names == ["random prompt", "mean prompt", "MLP", "attention"]
    assert order.method("MLP").seeds[0]["new"] == 71
    assert any("holds here" in note for note in order.notes)
    other = aggregator_order([ablation("a", mlp=10)])
    assert other is not None
    assert any("here it is MLP ≤ random prompt ≤ mean prompt" in note for note in other.notes)
    assert aggregator_order([table("a", {"ours": (1, 1)})]) is None


def test_the_suite_of_the_paper_has_its_tables_ablation_and_learning_curves():
    jobs = SUITES["paper"].jobs
    written = [job for job in jobs if job.recipe is not None]
    assert len(written) == 11
    assert all(job.recipe is not None and job.recipe.views for job in written)
    assert all(len(job.evaluation.controls) == 3 for job in written)
    curves = {}
    for job in jobs:
        if job.evaluation.protocol == "fewshot" and job.tasks == ["classification"]:
            curves.setdefault(job.dataset, []).append(job.evaluation.shots)
    assert len(curves) == 11
    assert all(shots == [1, 2, 4, 8, 16] for shots in curves.values())
