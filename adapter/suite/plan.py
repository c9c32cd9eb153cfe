"""What a suite runs: which data sets, which tasks on them, how large. Run by :mod:`.run`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from ...pipeline.config import (
    EncoderConfig,
    GenerationConfig,
    SamplingConfig,
    Section,
    Seed,
    TopUpConfig,
    load_section,
)
from ...pipeline.errors import UserError
from ...pipeline.settings import read_source
from ..captions.settings import CaptionConfig, CaptioningConfig, VqaConfig
from ..config import EvaluationConfig
from ..method.recipe import Recipe, load_recipe

Task = Literal["classification", "retrieval", "captioning", "vqa"]
TASKS: tuple[Task, ...] = ("classification", "retrieval", "captioning", "vqa")


class Job(Section):
    """One data set of a suite and what is evaluated on it."""

    dataset: str
    tasks: list[Task] = Field(default=["classification"], min_length=1)
    evaluation: EvaluationConfig = Field(default_factory=EvaluationConfig)
    targets: list[str] = Field(default=[], description="data sets that are only tested on")
    source: str = Field(default="", description="captioned data set to train on, if another one")
    recipe: Recipe | None = Field(default=None, description="if another one than the suite's")
    optional: bool = Field(default=False, description="left out, with a note, where it is absent")
    key: str = Field(default="", description="folder of the results; the data set's name if empty")

    @property
    def datasets(self) -> list[str]:
        """Every data set that the job reads."""
        return [name for name in (self.dataset, *self.targets, self.source) if name]

    @property
    def folder(self) -> str:
        """The name of the job's folder below the suite's."""
        return self.key or self.dataset


class Suite(Section):
    """A list of jobs with one encoder, one language model and one recipe."""

    name: str
    title: str
    jobs: list[Job] = Field(min_length=1)
    encoder: EncoderConfig = Field(default_factory=EncoderConfig)
    generation: GenerationConfig = Field(default_factory=GenerationConfig)
    recipe: Recipe = Field(default_factory=lambda: load_recipe("default"))
    captions: CaptionConfig = Field(default_factory=CaptionConfig)
    captioning: CaptioningConfig = Field(default_factory=CaptioningConfig)
    vqa: VqaConfig = Field(default_factory=VqaConfig)
    caption_seeds: list[Seed] = Field(
        default=[1, 2, 3], min_length=1, description="of retrieval, captioning and VQA"
    )
    repeat_images: bool = Field(
        default=False, description="draw classes with fewer images than shots with replacement"
    )
    test_images: int = Field(default=0, ge=0, description="of the caption tasks; 0 is all")
    test_questions: int = Field(default=0, ge=0, description="of VQA; 0 is all")


def _shapes(**evaluation: object) -> Job:
    return Job(
        dataset="shapes",
        tasks=list(TASKS),
        evaluation=EvaluationConfig.model_validate({"protocol": "base2new", **evaluation}),
    )


_LITE = EncoderConfig(name="lite")
_SHORT = SamplingConfig(max_tokens=40)
_SLOTS = 4  # of the AAPE, as many as image tokens: one slot is not read in so few steps


def _captioning(steps: int) -> CaptioningConfig:
    return CaptioningConfig(steps=steps, aape_tokens=_SLOTS)


def _vqa(caption_steps: int, steps: int) -> VqaConfig:
    """Begins with the prefixes of captioning."""
    return VqaConfig(caption_steps=caption_steps, steps=steps, aape_tokens=_SLOTS)


_EMBEDDED = Suite(
    name="embedded",
    title="aape on shapes: one prompt embedding, four tasks",
    jobs=[_shapes(controls=["language"])],
    encoder=_LITE,
    generation=GenerationConfig(samples=4, sampling=_SHORT),
    captions=CaptionConfig(max_images=800, max_validation=200),
    captioning=_captioning(100),
    vqa=_vqa(100, 100),
    caption_seeds=[1],
    test_images=200,
    test_questions=300,
)

_FAST = _EMBEDDED.model_copy(
    update={
        "name": "embedded-fast",
        "jobs": [_shapes(seeds=[1], baselines=["fast"], shots=4)],
        "generation": GenerationConfig(samples=1, sampling=_SHORT, top_up=TopUpConfig(min_kept=0)),
        "captions": CaptionConfig(max_images=256, max_validation=64, epochs=3),
        "captioning": _captioning(8),
        "vqa": _vqa(8, 8),
        "test_images": 48,
        "test_questions": 64,
    }
)

_FULL = _EMBEDDED.model_copy(
    update={
        "name": "embedded-full",
        "title": "aape on the embedded data sets: one prompt embedding, four tasks",
        "jobs": [
            _shapes(controls=["language"]),
            Job(dataset="stamps", tasks=["classification", "retrieval"], optional=True),
        ],
        "captions": CaptionConfig(),
        "captioning": _captioning(200),
        "vqa": _vqa(200, 400),
        "caption_seeds": [1, 2, 3],
    }
)

_ELEVEN = (
    "imagenet", "caltech101", "pets", "cars", "flowers", "food101", "aircraft", "sun397", "dtd",
    "eurosat", "ucf101",
)  # fmt: skip
_CROSS = EvaluationConfig(protocol="cross-dataset", baselines=["fast"])
_DOMAIN = EvaluationConfig(protocol="domain", baselines=["fast"])
_AS_WRITTEN = EvaluationConfig(controls=["aggregators"], baselines=["none"])  # type: ignore[list-item]
_WITH_PROLIP = EvaluationConfig(baselines=["all", "prolip"])
_SHOTS = (1, 2, 4, 8, 16)


def _few_shot(name: str, shots: int) -> Job:
    evaluation = EvaluationConfig(protocol="fewshot", shots=shots, baselines=["fast"])
    return Job(dataset=name, key=f"{name}-{shots}-shot", evaluation=evaluation)


_PAPER = Suite(
    name="paper",
    title="Aggregate-and-Adapt Prompt Embeddings: the paper's tables",
    jobs=[
        *[Job(dataset=name, evaluation=_WITH_PROLIP) for name in _ELEVEN],
        # the method as the paper writes it, and its ablation of aggregators
        *[
            Job(
                dataset=name, key=f"{name}-as-written", evaluation=_AS_WRITTEN,
                recipe=load_recipe("paper"),
            )
            for name in _ELEVEN
        ],
        *[_few_shot(name, shots) for name in _ELEVEN for shots in _SHOTS],
        Job(
            dataset="imagenet", key="imagenet-cross-dataset", evaluation=_CROSS,
            targets=list(_ELEVEN[1:]),
        ),
        Job(
            dataset="imagenet", key="imagenet-domain", evaluation=_DOMAIN,
            targets=["imagenet-v2", "imagenet-sketch", "imagenet-a", "imagenet-r"],
        ),
        Job(dataset="coco", tasks=["retrieval", "captioning"]),
        Job(dataset="flickr30k", tasks=["retrieval"]),
        Job(dataset="nocaps", tasks=["captioning"], source="coco"),
        Job(dataset="vqav2", tasks=["vqa"], source="coco"),
    ],
    encoder=EncoderConfig(name="ViT-B-16-quickgelu/openai"),
    repeat_images=True,  # as CoOp
)  # fmt: skip

SUITES = {suite.name: suite for suite in (_EMBEDDED, _FAST, _FULL, _PAPER)}


def load_suite(name: str) -> Suite:
    """Return a shipped suite by its name, or one from a YAML file; UserError if there is none."""
    if (
        name not in SUITES
        and Path(name).suffix in (".yaml", ".yml")
        and "task" in read_source(name)
    ):
        raise UserError(
            f"{name} is the configuration of a run, not of a suite.",
            "Train by it: aape train --config FILE, or aape train-captions --config FILE.",
        )
    return load_section(Suite, "suite", name, SUITES)
