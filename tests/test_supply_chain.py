"""What a release is made of: pinned, with hashes, and from nowhere in particular."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from places import REPOSITORY

LOCK = REPOSITORY / "requirements.lock"


def plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.fixture(scope="module")
def locked() -> dict[str, str]:
    """Each requirement of the lock file with its text."""
    blocks = re.split(r"(?m)^(?=[a-zA-Z0-9])", LOCK.read_text(encoding="utf-8"))
    return {plain(re.match(r"[\w.-]+", block)[0]): block for block in blocks if block.strip()}  # type: ignore[index]


def test_everything_is_pinned_with_hashes(locked: dict[str, str]) -> None:
    assert len(locked) > 50
    for name, block in locked.items():
        assert re.match(r"[\w.\[\],-]+===?\S+", block), name
        assert "--hash=sha256:" in block, name


def test_all_that_the_package_needs_is_locked(locked: dict[str, str]) -> None:
    tomllib = pytest.importorskip("tomllib")  # Python 3.11
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["serve"]]
    names = {plain(re.match(r"[\w.-]+", text)[0]) for text in wanted}  # type: ignore[index]
    assert names <= locked.keys()


def test_the_lock_names_no_host() -> None:
    text = LOCK.read_text(encoding="utf-8")
    assert not re.search(r"https?://|file:|index-url|find-links|trusted-host", text)


@pytest.mark.parametrize("name", ["audit", "release"])
def test_make_has_the_targets(name: str) -> None:
    assert f"\n{name}:" in Path(REPOSITORY / "Makefile").read_text(encoding="utf-8")
    assert "make audit" in Path(REPOSITORY / ".ci" / "run").read_text(encoding="utf-8")
