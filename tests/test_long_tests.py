"""What `make quick` leaves out: tests that exist, and those that start a process."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
from types import SimpleNamespace
from typing import Any

import pytest
from long_tests import listed, mark_long
from places import REPOSITORY, TESTS


def test_every_name_on_the_list_is_a_test_and_stands_there_once() -> None:
    names = listed()
    assert names == sorted(set(names))
    places: dict[str, set[str]] = {}
    for name in names:
        place, _, function = name.partition("::")
        if place not in places:
            tree = ast.parse((TESTS / place).read_text(encoding="utf-8"))
            places[place] = {x.name for x in ast.walk(tree) if isinstance(x, ast.FunctionDef)}
        assert function.split("::")[-1] in places[place], f"no such test: {name}"


def test_every_case_of_a_listed_test_and_what_starts_a_process_is_long() -> None:
    def item(place: str, name: str, *fixtures: str) -> Any:
        marks: list[str] = []
        return SimpleNamespace(
            path=TESTS / place, nodeid=f"tests/{place}::{name}", fixturenames=fixtures,
            marks=marks, add_marker=marks.append,
        )  # fmt: skip

    place, _, function = listed()[0].partition("::")
    items = [
        item(place, f"{function}[one]"),
        item(place, function),
        item(place, f"{function}_not"),
        item("test_cli.py", "test_anything", "tmp_path", "aape"),
        item(place, "test_another", function),  # were it a fixture
    ]
    mark_long(items)
    assert [one.marks for one in items] == [["long"], ["long"], [], ["long"], ["long"]]


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not on this machine")
def test_a_room_that_is_not_there_is_one_sentence() -> None:
    done = subprocess.run(
        ["make", "quick", "ROOM=pipeline/nowhere"],
        cwd=REPOSITORY, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    first, _, rest = done.stderr.partition("\n")
    assert first.startswith("There are no tests of the room pipeline/nowhere: name a folder")
    assert re.match(r"make(\[\d+\])?: \*\*\*", rest)  # a number where make runs the tests
