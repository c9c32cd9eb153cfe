"""Files are whole or absent, whatever happens while they are written."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from places import REPOSITORY

from aape.adapter.run import RunFolder
from aape.pipeline import leftovers
from aape.pipeline.config import GenerationConfig, SamplingConfig
from aape.pipeline.errors import UserError, unknown_name
from aape.pipeline.files import (
    atomic_folder,
    atomic_path,
    exclusive,
    hash_value,
    read_json,
    write_json,
    write_text,
)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "file"
    write_text(path, "old")
    with pytest.raises(RuntimeError), atomic_path(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_killed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "file"
    write_text(path, "old")
    code = (
        "import sys, time\nfrom aape.pipeline.files import atomic_path\n"
        f"with atomic_path({str(path)!r}) as t:\n"
        "    t.write_text('half'); print('written', flush=True); time.sleep(60)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"written\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert path.read_text() == "old"


def test_new_files_have_ordinary_permissions(tmp_path):
    write_text(tmp_path / "ours", "x")
    (tmp_path / "theirs").write_text("x")
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "theirs").stat().st_mode


@pytest.fixture
def full_disk(tmp_path):
    """A real file system of 64 KiB; needs the right to mount one."""
    folder = tmp_path / "full"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(mount, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        pytest.skip("mounting a small file system is not permitted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_is_one_clear_sentence(full_disk):
    with pytest.raises(UserError, match="No space left"):
        write_json(full_disk / "big.json", ["x" * 1000] * 200)
    assert list(full_disk.iterdir()) == []


def test_two_processes_cannot_hold_one_lock(tmp_path):
    code = (
        "import time\nfrom aape.pipeline.files import exclusive\n"
        f"with exclusive({str(tmp_path / 'bank')!r}, 'writing'):\n"
        "    print('held', flush=True); time.sleep(60)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"held\n"
    with (
        pytest.raises(UserError, match="Another process is writing"),
        exclusive(tmp_path / "bank", "writing"),
    ):
        pytest.fail("the lock was given twice")
    process.kill()
    process.wait()
    with exclusive(tmp_path / "bank", "writing"):
        assert os.getpid() != process.pid


@given(st.dictionaries(st.text(max_size=8), st.integers() | st.text(max_size=8), max_size=5))
def test_hash_does_not_depend_on_the_order_of_keys(value):
    assert hash_value(value) == hash_value(dict(reversed(value.items())))


def test_reading_what_is_not_json_is_a_user_error(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        read_json(tmp_path / "absent")
    with pytest.raises(UserError, match="is a folder"):
        read_json(tmp_path)
    (tmp_path / "bad").write_text("{")
    with pytest.raises(UserError, match="not valid JSON"):
        read_json(tmp_path / "bad")


def test_config_round_trips_and_refuses_unknown_keys(tmp_path):
    config = GenerationConfig(samples=3, sampling=SamplingConfig(temperature=0.5))
    path = tmp_path / "config.yaml"
    path.write_text(config.to_yaml())
    assert GenerationConfig.from_yaml(path) == config
    with pytest.raises(UserError, match="sample_count"):
        GenerationConfig.parse({"sample_count": 3}, "config.yaml")
    path.write_text("a: [")
    with pytest.raises(UserError, match="not valid YAML"):
        GenerationConfig.from_yaml(path)


def test_unknown_name_lists_all_and_names_the_nearest():
    error = unknown_name("data set", "carz", ["pets", "cars"])
    assert str(error) == "Unknown data set 'carz'. Did you mean 'cars'? Known: cars, pets."
    assert "Did you mean" not in str(unknown_name("data set", "zzz", ["cars"]))


def test_cache_folder_follows_the_environment(tmp_path, monkeypatch):
    from aape.pipeline.files import cache_folder

    monkeypatch.setenv("AAPE_HOME", str(tmp_path / "home"))
    assert cache_folder("a", "b") == tmp_path / "home" / "a" / "b"
    assert Path(tmp_path / "home" / "a" / "b").is_dir()


def test_a_lock_in_a_folder_that_cannot_be_written_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import os

    true_open = os.open

    def read_only(path, *options, **named):
        if str(path).endswith(".lock"):
            raise PermissionError(13, "Permission denied", str(path))
        return true_open(path, *options, **named)

    monkeypatch.setattr(os, "open", read_only)
    with (
        pytest.raises(UserError, match=r"Cannot write .*bank\.lock"),
        exclusive(tmp_path / "bank", "writing"),
    ):
        raise AssertionError("the block was entered")
    (tmp_path / "file").write_text("x")
    with (
        pytest.raises(UserError, match="Cannot write"),
        exclusive(tmp_path / "file" / "bank", "writing"),
    ):
        raise AssertionError("the block was entered")


def test_nothing_of_one_system_is_imported_at_the_top() -> None:
    """Windows has no fcntl, resource or pwd."""
    root = REPOSITORY
    for path in (*root.glob("pipeline/**/*.py"), *root.glob("adapter/**/*.py"), root / "cli.py"):
        for line in path.read_text(encoding="utf-8").splitlines():
            assert not line.startswith(("import fcntl", "import resource", "import pwd")), path


def test_what_a_killed_process_left_is_removed_by_the_next(tmp_path: Path) -> None:
    script = (
        "import os, signal, sys; from pathlib import Path; from aape.pipeline.files import *\n"
        "with atomic_path(Path(sys.argv[1])) as part: os.kill(os.getpid(), signal.SIGKILL)"
    )
    target = tmp_path / "bank.parquet"
    subprocess.run([sys.executable, "-c", script, str(target)], check=False)
    (left,) = tmp_path.iterdir()
    mine = leftovers.temporary_file(tmp_path / "other")  # of a process that lives
    leftovers._swept.discard(tmp_path)
    write_text(target, "whole")
    assert set(tmp_path.iterdir()) == {target, mine}
    assert not left.exists()


@pytest.mark.parametrize("kind", [RuntimeError, ValueError])
def test_a_full_disk_is_one_sentence_whoever_says_it(tmp_path: Path, kind) -> None:
    with pytest.raises(UserError, match="No space left"), atomic_path(tmp_path / "x"):
        raise kind("Error while serializing: I/O error: No space left on device (os error 28)")
    assert not list(tmp_path.iterdir())


def test_what_is_appended_to_on_a_full_disk_is_one_sentence(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    run.log(epoch=1)
    (run.path / "metrics.jsonl").unlink()
    (run.path / "metrics.jsonl").symlink_to("/dev/full")
    with pytest.raises(UserError, match="No space left"):
        run.log(epoch=2)


def test_a_folder_that_another_process_filled_meanwhile_is_kept(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(UserError, match="filled by something else"), atomic_folder(out) as folder:
        (folder / "mine").write_text("mine")
        out.mkdir()
        (out / "theirs").write_text("theirs")
    assert [path.name for path in out.iterdir()] == ["theirs"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
