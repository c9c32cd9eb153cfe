"""Which pixels an architecture wants, where its weights came without the name of their training."""

from __future__ import annotations

from typing import Any

from ..errors import UserError

QUICK = "-quickgelu"
_KEYS = ("mean", "std", "interpolation", "resize_mode")


def preprocessing(model_name: str, config: dict[str, Any], *, openai: bool = False) -> dict:
    """Return mean, std, interpolation and resize mode for the weights of an architecture.

    What open_clip knows about the tag (``config``) decides; without a tag, what all published
    weights of the architecture share. Nothing is returned where open_clip has no weights of it:
    then open_clip's own default holds, as for a model trained with open_clip from nothing.

    Args:
        openai: the weights are OpenAI's original archive, whatever their name.

    Raises:
        UserError: published weights of this architecture differ in their preprocessing.
    """
    if config:
        return _chosen(config)
    kinds: dict[tuple, list[str]] = {}
    for name, tag, known in _published(model_name):
        if openai and tag == "openai":
            return _chosen(known)
        kinds.setdefault(tuple(_chosen(known).items()), []).append(f"{name}/{tag}")
    if not kinds:
        return {}
    if len(kinds) == 1:
        return dict(next(iter(kinds)))
    examples = " or ".join(names[0] for names in kinds.values())
    raise UserError(
        f"The published weights of {model_name} want {len(kinds)} different preprocessings of "
        "photos, and the checkpoint does not say which is its own.",
        f"Name the weights that the checkpoint began from, such as --encoder {examples}.",
    )


def _chosen(config: dict[str, Any]) -> dict[str, Any]:
    return {
        key: tuple(config[key]) if isinstance(config[key], list) else config[key]
        for key in _KEYS
        if config.get(key) is not None
    }


def _published(model_name: str) -> list[tuple[str, str, dict[str, Any]]]:
    """Return the published weights of an architecture with either activation."""
    from open_clip.pretrained import get_pretrained_cfg, list_pretrained_tags_by_model

    plain = model_name.removesuffix(QUICK)
    return [
        (name, tag, get_pretrained_cfg(name, tag))
        for name in dict.fromkeys((model_name, plain, f"{plain}{QUICK}"))
        for tag in list_pretrained_tags_by_model(name)
    ]
