"""Suites: what they hold, and what stops one before any work."""

from __future__ import annotations

import pytest

from aape.adapter.suite.plan import SUITES, Job, Suite, load_suite
from aape.adapter.suite.run import run_suite
from aape.pipeline.datasets import known_datasets
from aape.pipeline.errors import UserError


@pytest.mark.parametrize("name", SUITES)
def test_a_suite_reads_back_from_its_yaml_and_names_known_data_sets(name, tmp_path):
    suite = SUITES[name]
    path = tmp_path / "suite.yaml"
    path.write_text(suite.to_yaml())
    assert load_suite(str(path)) == suite
    folders = [job.folder for job in suite.jobs]
    assert len(set(folders)) == len(folders)
    for job in suite.jobs:
        assert set(job.datasets) <= set(known_datasets())


def test_unknown_suite_is_named():
    with pytest.raises(UserError, match="Did you mean 'embedded'"):
        load_suite("embeded")


def test_missing_data_sets_are_all_named_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setenv("AAPE_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("AAPE_DATA", raising=False)
    suite = Suite(name="two", title="two", jobs=[Job(dataset="pets"), Job(dataset="dtd")])
    with pytest.raises(UserError) as error:
        run_suite(suite, tmp_path / "out")
    assert "pets" in str(error.value)
    assert "dtd" in str(error.value)
    assert not (tmp_path / "out").exists()
    with pytest.raises(UserError, match="No data set of the suite"):
        run_suite(suite, tmp_path / "out", skip_missing=True)
