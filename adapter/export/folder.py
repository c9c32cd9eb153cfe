"""A folder in the manner of peft: ``adapter_config.json``, ``adapter.safetensors``, a model card.

It is a run folder without its work: ``aape predict`` takes it as it is. Nothing in it names a place
on this machine.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...pipeline.errors import UserError
from ...pipeline.files import write_text
from ...pipeline.leftovers import sweep
from ..config import Config
from ..method.adapter import FittedAdapter
from ..run import RunFolder
from .card import model_card

FILES = ("config.yaml", "adapter_config.json", "adapter.safetensors", "README.md")
_PLACES = ("bank", "features", "checkpoint", "root")


def write_folder(run: str | Path, out: str | Path) -> Path:
    """Write the adapter of a run into a folder of its own.

    Raises:
        UserError: the run has no adapter, or ``out`` is the run, or holds something else.
    """
    source, target = RunFolder.open(run), RunFolder(out)
    tensors, about = source.load_classifier()
    FittedAdapter.load(tensors, about)  # refuses what is not of one adapter
    if target.path.exists():
        if target.path.resolve() == source.path.resolve():
            raise UserError(f"{out} is the run itself.", "Name another folder.")
        sweep(target.path)  # what a killed export left is nobody's
        others = sorted(p.name for p in target.path.iterdir() if p.name not in FILES)
        if others:
            raise UserError(
                f"{out} already holds something else: {others[0]}.", "Name an empty folder."
            )
    config = Config.from_yaml(source.path / "config.yaml")
    write_text(target.path / "config.yaml", placeless_config(config).to_yaml())
    about = placeless(about) | {"peft_type": "AAPE", "base_model_name_or_path": about["encoder"]}
    target.save_weights(tensors, about)
    write_text(target.path / "README.md", model_card(source, about))
    return target.path


def placeless(about: dict[str, Any]) -> dict[str, Any]:
    """Return a description in which places on this machine are file names only."""
    return {
        key: Path(value).name if key in _PLACES and isinstance(value, str) else value
        for key, value in about.items()
    }


def placeless_config(config: Config) -> Config:
    """Return a configuration without places on this machine; files keep their names.

    That the encoder had local weights stays said: then they must be given again.
    """
    data = config.data.model_copy(
        update={
            "bank": Path(config.data.bank).name,
            "features": Path(config.data.features).name,
            "root": "",
            "targets": [Path(name).name for name in config.data.targets],
        }
    )
    name = config.encoder.name
    local = name.startswith((".", "/", "~")) or Path(name).expanduser().is_absolute()
    encoder = config.encoder.model_copy(
        update={
            "checkpoint": Path(config.encoder.checkpoint).name,
            "name": Path(name).name if local else name,
        }
    )
    return config.model_copy(update={"data": data, "encoder": encoder})
