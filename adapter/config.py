"""The whole configuration tree, as a run writes it to ``config.yaml`` and reads it again."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from ..pipeline.config import EncoderConfig, GenerationConfig, Section, Seed
from ..pipeline.errors import UserError
from .method.recipe import CONTROL_GROUPS, Control, Recipe, load_recipe
from .shots import Shots


class DataConfig(Section):
    """What is trained on: a bank and its images, or cached features."""

    bank: str = Field(default="", description="Parquet file of stage one")
    dataset: str = Field(default="", description="of a bank that has several; else the bank's own")
    root: str = Field(default="", description="folder of the images; empty is the usual place")
    features: str = Field(default="", description="safetensors file of cached features")
    targets: list[str] = Field(
        default=[], description="other data sets, banks or feature files that are only tested on"
    )
    unlabelled: str = Field(
        default="", description="photos without labels: a folder, a file of features, or train"
    )
    semi: bool = Field(default=False, description="use the shots too, beside those photos")
    repeat_images: bool = Field(
        default=False, description="draw classes with fewer images than shots with replacement"
    )


class EvaluationConfig(Section):
    """What is measured, by which rule, against what."""

    protocol: str = Field(
        default="base2new",
        description="rule of evaluation: fewshot, base2new, generalized, cross-dataset, domain,"
        " incremental",
    )
    shots: Shots = Field(
        default=16, description="training images a class, or all: every one; 0 with unlabelled"
    )
    seeds: list[Seed] = Field(default=[1, 2, 3], min_length=1, description="of the shots")
    init_seed: Seed | None = Field(default=None, description="of weights; by default the shots'")
    order_seed: Seed | None = Field(default=None, description="of batches; by default the shots'")
    controls: list[Control] = Field(default=[], description="groups of controls are spelt out")
    baselines: list[str] = Field(
        default=["all"], description="names, or all, fast, slow, literal, none"
    )
    new_classes: Literal["bank", "name"] = Field(
        default="bank", description="new classes have the bank's prompts, or the template alone"
    )
    names: Literal["given", "best"] = Field(
        default="given",
        description="of trained classes: as given, or those of the bank that training photos fit",
    )
    new_class_prompts: bool = Field(default=False, description="of older runs: now the default")
    resamples: int = Field(
        default=1000, ge=0, le=1_000_000, description="of the paired bootstrap; 0 is none"
    )

    @field_validator("seeds")
    @classmethod
    def _different(cls, seeds: list[int]) -> list[int]:
        if len(set(seeds)) != len(seeds):
            raise ValueError("a seed occurs twice: it would count twice in mean and deviation")
        return seeds

    @field_validator("controls", mode="before")
    @classmethod
    def _spell_out(cls, names: Any) -> Any:
        if not isinstance(names, list):
            return names
        return list(dict.fromkeys(c for name in names for c in CONTROL_GROUPS.get(name, [name])))


class Config(Section):
    """Everything that decides a run."""

    task: Literal["classification"] = Field(
        default="classification", description="what the run is for"
    )
    data: DataConfig = Field(default_factory=DataConfig)
    encoder: EncoderConfig = Field(default_factory=EncoderConfig)
    recipe: Recipe = Field(default_factory=lambda: load_recipe("default"))
    evaluation: EvaluationConfig = Field(default_factory=EvaluationConfig)

    @model_validator(mode="before")
    @classmethod
    def _of_older_runs(cls, values: Any) -> Any:
        """Leave out what older runs wrote down and nothing read: how a bank was once made.

        That is the section ``generation``, in a file that a run wrote, which names its task.
        """
        if not isinstance(values, dict) or "generation" not in values or "task" not in values:
            return values
        try:
            GenerationConfig.parse(values["generation"], "the configuration", within="generation")
        except UserError as error:
            raise ValueError(str(error)) from error
        return {name: value for name, value in values.items() if name != "generation"}


# what recipes of a kind read; the rest is of the other kind
_READ_BY_ALL = ("name", "kind")
_OF_CONVEX = ("class_text", "convex")


def refuse_unread(recipe: Recipe, names: Iterable[str]) -> None:
    """Stop where a setting was asked for that the recipe does not read.

    Args:
        names: dotted, such as ``recipe.lr``; those of other sections are not looked at.

    Raises:
        UserError: the recipe is of the other kind.
    """
    for name in names:
        section, _, rest = name.partition(".")
        field = rest.split(".")[0]
        if section != "recipe" or not field or field in _READ_BY_ALL:
            continue
        if (field in _OF_CONVEX) != (recipe.kind == "convex"):
            other = "a recipe trained by gradient, such as --recipe staged"
            if field in _OF_CONVEX:
                other = "the recipe default"
            raise UserError(
                f"The recipe {recipe.name!r} ({recipe.kind}) does not read {name}.",
                f"It is a setting of {other}.",
            )
