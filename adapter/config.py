"""The whole configuration tree, as a run writes it to ``config.yaml`` and reads it again."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator

from ..pipeline.config import EncoderConfig, GenerationConfig, Section
from .method.recipe import CONTROL_GROUPS, Control, Recipe


class DataConfig(Section):
    """What is trained on: a bank and its images, or cached features."""

    bank: str = Field(default="", description="Parquet file of stage one")
    dataset: str = Field(default="", description="of a bank that has several; else the bank's own")
    root: str = Field(default="", description="folder of the images; empty is the usual place")
    features: str = Field(default="", description="safetensors file of cached features")
    targets: list[str] = Field(
        default=[], description="other data sets, banks or feature files that are only tested on"
    )
    repeat_images: bool = Field(
        default=False, description="draw classes with fewer images than shots with replacement"
    )


class EvaluationConfig(Section):
    """What is measured, by which rule, against what."""

    protocol: str = "base2new"
    shots: int = Field(default=16, ge=1)
    seeds: list[int] = Field(default=[1, 2, 3], min_length=1, description="of the shots")
    init_seed: int | None = Field(default=None, description="of weights; by default the shots'")
    order_seed: int | None = Field(default=None, description="of batches; by default the shots'")
    controls: list[Control] = Field(default=[], description="groups of controls are spelt out")
    baselines: list[str] = Field(default=["all"])
    new_classes: Literal["bank", "name"] = Field(
        default="bank", description="new classes have the bank's prompts, or the template alone"
    )
    new_class_prompts: bool = Field(default=False, description="of older runs: now the default")
    resamples: int = Field(default=1000, ge=0, description="of the paired bootstrap; 0 is none")

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

    task: Literal["classification"] = "classification"
    data: DataConfig = Field(default_factory=DataConfig)
    encoder: EncoderConfig = Field(default_factory=EncoderConfig)
    generation: GenerationConfig = Field(default_factory=GenerationConfig)
    recipe: Recipe = Field(default_factory=Recipe)
    evaluation: EvaluationConfig = Field(default_factory=EvaluationConfig)
