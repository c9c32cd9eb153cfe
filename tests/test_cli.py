"""The command line as a user meets it: through real processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = ("torch", "open_clip", "transformers", "vllm", "faiss", "duckdb", "pyarrow", "numpy")


def verbs() -> list[list[str]]:
    """Every verb and sub-verb of the command line, found in the app itself."""
    import typer

    from aape.cli import app

    found: list[list[str]] = [[]]

    def walk(command, path):
        for name, child in getattr(command, "commands", {}).items():
            found.append([*path, name])
            walk(child, [*path, name])

    walk(typer.main.get_command(app), [])
    return found


def test_every_help_answers_without_heavy_imports():
    code = (
        "import json, sys, io, contextlib\n"
        "from aape.cli import app\n"
        "for path in json.loads(sys.argv[1]):\n"
        "    out = io.StringIO()\n"
        "    with contextlib.redirect_stdout(out):\n"
        "        try:\n            app([*path, '--help'])\n"
        "        except SystemExit as end:\n            assert not end.code, path\n"
        "    assert 'Usage' in out.getvalue(), path\n"
        f"    loaded = [m for m in {HEAVY!r} if m in sys.modules]\n"
        "    assert not loaded, (path, loaded)\n"
    )
    command = [sys.executable, "-c", code, json.dumps(verbs())]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_importing_the_package_is_light():
    code = f"import sys, aape; print([m for m in {HEAVY!r} if m in sys.modules], aape.__version__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("[] 0.")


@pytest.mark.parametrize(
    ("call", "answer"),
    [
        ("len(aape.options('recipe')) > 10", "True"),
        ("aape.train(bank='b', settings=['recipe.convex.doupt=1'])", "recipe.convex.doubt"),
        ("aape.sweep(['b'], settings=['recipe.convex.doupt=1'])", "recipe.convex.doubt"),
        ("aape.train_captions('shapes', settings=['captions.leer=1'])", "captions.lr"),
        ("aape.eval_captioning('r', settings=['captioning.stebs=1'])", "'captioning.stebs'"),
        ("aape.eval_vqa('r', settings=['vqa.stebs=1'])", "'vqa.stebs'"),
        ("aape.eval_all('nope')", "Unknown suite"),
    ],
)
def test_settings_are_read_and_refused_without_torch(call, answer, tmp_path):
    code = (
        "import sys, aape\n"
        f"try:\n    print({call})\n"
        "except aape.UserError as error:\n    print(error)\n"
        "assert not {'torch', 'open_clip', 'transformers', 'faiss'} & set(sys.modules)\n"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert answer in done.stdout


def test_a_word_finds_the_settings_that_are_named_so():
    import aape

    names = [row["name"] for row in aape.options("doubt")]
    assert "recipe.convex.doubt" in names
    assert all("doubt" in name for name in names)
    assert [row["name"] for row in aape.options("recipe.lr")] == ["recipe.lr"]
    with pytest.raises(aape.UserError, match="nothing"):
        aape.options("nothing")


def test_public_names_exist():
    import aape

    for name in aape.__all__:
        assert getattr(aape, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = aape.nothing


def test_unknown_data_set_is_one_sentence_and_status_2(aape, tmp_path):
    done = aape("generate-prompts", "--dataset", "carz", cwd=tmp_path)
    assert done.returncode == 2
    assert "Unknown data set 'carz'. Did you mean 'cars'?" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_missing_bank_is_one_sentence_and_status_2(aape, tmp_path):
    done = aape("train", "--bank", tmp_path / "absent.parquet", "--out", tmp_path / "run")
    assert done.returncode == 2
    assert "absent.parquet" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_wheel_works_outside_the_checkout(tmp_path):
    """Build the wheel and run it with nothing of the checkout on the path, manifests included."""
    from aape import __file__ as package

    root = str(Path(package).parent)
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-q"]
    source = tmp_path / "source"
    subprocess.run(["git", "clone", "-q", root, str(source)], check=True)
    subprocess.run([*build, "-w", str(tmp_path), str(source)], check=True, capture_output=True)
    wheel = next(tmp_path.glob("aape-*.whl"))
    target = tmp_path / "site"
    install = [sys.executable, "-m", "pip", "install", "--no-deps", "-q", "--target", str(target)]
    subprocess.run([*install, str(wheel)], check=True, capture_output=True)
    code = (
        "import aape; from aape.pipeline.datasets import known_datasets, load_manifest\n"
        "from importlib.resources import files\n"
        "assert files('aape.adapter.report').joinpath('report.html.j2').is_file()\n"
        "print(aape.__file__, len(known_datasets()), len(load_manifest('cars').classes))"
    )
    environment = {**os.environ, "PYTHONPATH": str(target)}
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True, text=True, check=False, cwd=tmp_path, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    where, datasets, classes = done.stdout.split()
    assert where.startswith(str(target))
    assert int(datasets) >= 2
    assert classes == "196"


@pytest.mark.parametrize("verb", [["options"], ["encoders"], ["--help"]])
def test_a_full_disk_is_one_sentence_and_a_reader_that_leaves_is_no_finding(verb):
    command = [sys.executable, "-m", "aape", *verb]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == (
        "aape: The output cannot be written: No space left on device. Choose another place.\n"
    )
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True, check=False)
    os.close(write)
    assert (done.returncode, done.stderr) == (0, "")
