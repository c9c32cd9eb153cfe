"""The mutation testing itself: what is drawn, what notices it, and that reasons do not grow old."""

from __future__ import annotations

from pathlib import Path

import pytest
from places import REPOSITORY

pytest.importorskip("cosmic_ray")
mutate = pytest.importorskip("benchmarks.mutants.mutate")
page = pytest.importorskip("benchmarks.mutants.page")
targets = pytest.importorskip("benchmarks.mutants.targets")
trial = pytest.importorskip("benchmarks.mutants.trial")

SOURCE = '''"""A module."""


def double(number: int | None, *, twice: int = 2) -> int | None:
    """Return it twice."""
    return None if number is None else twice * number
'''


def test_a_seed_draws_the_same_changes_and_none_that_says_nothing() -> None:
    drawn = mutate.draw("double.py", SOURCE, 50, 1)
    assert drawn == mutate.draw("double.py", SOURCE, 50, 1)
    assert 4 <= len(drawn) <= mutate.places_of(SOURCE)
    for mutant in drawn:
        assert mutant.text != SOURCE
        assert "int | None) ->" not in mutant.was or "= 2" in mutant.was  # no annotation
        assert SOURCE.splitlines()[mutant.line - 1].strip() == mutant.was
        compile(mutant.text, "double.py", "exec")
    few = mutate.draw("double.py", SOURCE, 2, 1)
    assert set(few) < set(drawn)


@pytest.mark.slow
def test_a_test_notices_a_change_that_is_nowhere_on_disk(tmp_path: Path) -> None:
    module = tmp_path / "double_of.py"
    module.write_text("def double(number):\n    return 2 * number\n")
    check = tmp_path / "test_double_of.py"
    check.write_text(
        f"import sys\nsys.path.insert(0, {str(tmp_path)!r})\nfrom double_of import double\n"
        "def test_double():\n    assert double(3) == 6\n"
    )
    wrong = "def double(number):\n    return 2 + number\n"
    late = "def double(number):\n    while True: pass\n"
    assert trial.trial([str(check)], 60)[0] == "passed"
    assert trial.trial([str(check)], 60, (module, wrong))[0] == "failed"
    assert trial.trial([str(check)], 3, (module, late))[0] == "late"
    assert "2 * number" in module.read_text()


def test_what_is_mutated_and_what_tests_it_are_there() -> None:
    for modules in targets.PLACES.values():
        for module, tests in modules.items():
            assert (REPOSITORY / module).is_file()
            for test in tests:
                file, _, name = test.removeprefix("--deselect=").partition("::")
                assert f"def {name}" in (REPOSITORY / file).read_text(encoding="utf-8")


def test_every_reason_is_of_a_line_that_is_still_there() -> None:
    for module, was, now in page.reasons():
        lines = [line.strip() for line in (REPOSITORY / module).read_text().splitlines()]
        assert was in lines, (module, was)
        assert was != now
