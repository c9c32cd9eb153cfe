"""Engines: where the language model runs. One is chosen, its model resolved, and it is opened."""

from __future__ import annotations

from typing import NamedTuple

from ...config import GenerationConfig
from ...errors import UserError
from ..requests import ModelIdentity
from .base import Answer, Engine
from .vllm import find_interpreter, has_gpu

__all__ = ["Answer", "Choice", "Engine", "choose_engine", "open_engine", "resolve_model"]

# Apache-2.0, fits a 16 GB card, answers without a chain of thought: see docs/generation.md.
GPU_MODEL = "Qwen/Qwen3-4B-Instruct-2507"


class Choice(NamedTuple):
    """An engine by name, and why it was taken."""

    name: str
    reason: str


def choose_engine(config: GenerationConfig) -> Choice:
    """Return the engine to use: the one asked for, or vLLM where it is usable.

    Raises:
        UserError: an interpreter was named that has no vLLM.
    """
    if config.engine != "auto":
        return Choice(config.engine, "asked for")
    found = find_interpreter()
    if found.usable:
        return Choice("vllm", f"vLLM {found.version} in {found.python}, {found.reason}")
    return Choice("transformers", f"vLLM is not usable: {found.reason}")


def resolve_model(config: GenerationConfig, engine: str) -> ModelIdentity:
    """Return the model that ``engine`` will load, with what tells its versions apart.

    ``auto`` is :data:`GPU_MODEL` where a GPU is and the model can be had, else the embedded one.

    Raises:
        UserError: the model cannot be had; or a server was asked for without naming its model.
    """
    from ...progress import step
    from ..models import EMBEDDED, EMBEDDED_ID, folder_revision, local_folder

    if engine == "openai":
        if config.model == "auto":
            raise UserError("The engine openai needs a model name.", "Give it with --model.")
        return ModelIdentity(config.model, config.revision, config.model)
    spec = config.model
    if spec == "auto":
        spec = EMBEDDED
        if has_gpu():
            try:
                local_folder(GPU_MODEL, config.revision)
                spec = GPU_MODEL
            except UserError as error:
                step(f"{error.message} The embedded {EMBEDDED} is used instead.")
    folder = local_folder(spec, config.revision)
    name = EMBEDDED_ID if spec in (EMBEDDED, EMBEDDED_ID) else spec.rstrip("/")
    if name != EMBEDDED_ID and folder == _as_folder(spec):
        name = folder.resolve().name
    return ModelIdentity(name, folder_revision(folder), str(folder))


def _as_folder(spec: str):
    from pathlib import Path

    return Path(spec).expanduser()


def open_engine(config: GenerationConfig, model: ModelIdentity, name: str) -> Engine:
    """Start the engine ``name`` with its model.

    Raises:
        UserError: the engine cannot start here, with what to do about it.
    """
    if name == "vllm":
        from .vllm import VllmEngine

        return VllmEngine(config, model)
    if name == "transformers":
        from .local import TransformersEngine

        return TransformersEngine(config, model)
    if name == "openai":
        from .openai import ServerEngine

        return ServerEngine(config, model)
    if name == "ray":
        from .ray import RayEngine

        return RayEngine(config, model)
    raise UserError(f"Unknown engine {name!r}.", "Known: openai, ray, transformers, vllm.")
