"""The classes of a run, as its ``adapter_config.json`` names them: checked before they are used.

c classes of the data set, s trained ones. A folder may come from a stranger, so names, ids and
tensors must agree.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import ConfigDict, Field

from ..pipeline.config import Section
from ..pipeline.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

Name = Annotated[str, Field(max_length=100_000)]
Template = Annotated[str, Field(max_length=100_000, pattern=r"\{\}")]
Positive = Annotated[float, Field(ge=0, le=1e12)]


class GaussianChoice(Section):
    """How much Gaussian classes weigh where more are added."""

    model_config = ConfigDict(extra="ignore")
    weight: Positive = Field(default=0.1, description="α of the Gaussian term")
    temperature: Positive = Field(default=1.0, description="factor of all logits")


class RunClasses(Section):
    """What ``adapter_config.json`` says of the classes; other keys are for other readers."""

    model_config = ConfigDict(extra="ignore")
    dataset: str = Field(description="name of the data set")
    encoder: str = Field(min_length=1, description="fingerprint of the encoder")
    protocol: str | None = Field(default=None, description="which classes were trained")
    shots: int | str | None = Field(default=None, description="photos a class, or all")
    seed: int | None = Field(default=None, description="of the draw")
    class_names: list[Name] = Field(min_length=1, description="trained classes, in their order")
    all_class_names: list[Name] = Field(min_length=1, description="of the data set, by class id")
    class_ids: list[int] | None = Field(default=None, description="of the trained classes")
    template: Template | None = Field(default=None, description="for names; absent for features")
    ensemble: list[Template] | None = Field(default=None, description="templates beside it")
    gaussian: GaussianChoice | None = Field(default=None, description="for classes to come")


def check_run_classes(about: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Compare names, ids and templates with each other and with the tensors.

    Raises:
        UserError: they do not agree, or are not what they must be.
    """
    values = {key: value for key, value in about.items() if value != ""}
    kept = RunClasses.parse(values, "adapter_config.json")
    problem = _disagreement(kept, about, tensors)
    if problem:
        raise UserError(
            f"adapter_config.json and adapter.safetensors do not belong together: {problem}.",
            "Train again, or fetch the folder again.",
        )


def _disagreement(kept: RunClasses, about: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    texts, all_texts = tensors.get("text"), tensors.get("class_texts")
    trained, names = len(kept.class_names), len(kept.all_class_names)
    if texts is None or texts.ndim != 2 or len(texts) != trained:
        return f"{trained} trained classes are named, and there are other texts"
    if all_texts is not None and (all_texts.ndim != 2 or len(all_texts) != names):
        return f"{names} classes are named, and {len(all_texts)} have texts"
    choice = about.get("class_text")
    ensemble = isinstance(choice, Mapping) and choice.get("base") == "ensemble"
    if ensemble and kept.template and not kept.ensemble:
        return "its class texts are of an ensemble, and no templates of one are named"
    ids = trained_ids(about)
    if len(ids) != trained or len(set(ids)) != trained:
        return f"{trained} trained classes are named, and {len(set(ids))} class ids"
    for name, class_id in zip(kept.class_names, ids):
        if not 0 <= class_id < names or kept.all_class_names[class_id] != name:
            return f"the class id {class_id} is not that of the trained class {name!r}"
    return ""


def trained_ids(about: Mapping[str, Any]) -> list[int]:
    """Return the class ids that were trained; of older runs by their names, in their order.

    Raises:
        UserError: a trained class is none of the data set.

    >>> trained_ids({"all_class_names": ["a", "b", "a"], "class_names": ["a", "a"]})
    [0, 2]
    """
    if about.get("class_ids") is not None:
        return [int(class_id) for class_id in about["class_ids"]]
    free: dict[str, list[int]] = {}
    for class_id, name in enumerate(about["all_class_names"]):
        free.setdefault(name, []).append(class_id)
    found: list[int] = []
    for name in about["class_names"]:
        if not free.get(name):
            raise UserError(f"The run names a trained class {name!r} that its data set has not.")
        found.append(free[name].pop(0))
    return found


def trained_positions(about: Mapping[str, Any]) -> list[int]:
    """Return the place of each class (c,) among the trained ones, or -1.

    >>> trained_positions({"all_class_names": ["a", "b", "a"], "class_names": ["a"],
    ...                    "class_ids": [2]})
    [-1, -1, 0]
    """
    place = {class_id: position for position, class_id in enumerate(trained_ids(about))}
    return [place.get(class_id, -1) for class_id in range(len(about["all_class_names"]))]
