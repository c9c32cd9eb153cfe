"""What can be set of training and tests on captions; without torch, so that it is there at once."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, NonNegativeInt

from ...pipeline.config import EncoderConfig, Section, Seed

Kind = Literal["none", "image", "x", "aape", "both"]
KINDS: tuple[Kind, ...] = ("none", "image", "aape", "both")


class CaptionConfig(Section):
    """How the generator is trained on captions. ``literal`` choices are the paper's wording."""

    form: Literal["image", "mean", "literal"] = Field(
        default="image",
        description="h(x) is x moved by the mean gap + MLP, the mean caption + MLP, or MLP alone",
    )
    width: int = Field(default=64, ge=1, description="hidden units of h")
    aggregator: Literal["attention", "mean", "random", "mlp"] = Field(
        default="attention", description="of the captions of an image"
    )
    identity: bool = Field(default=True, description="start the aggregator at the mean caption")
    distillation: float = Field(default=5.0, ge=0, description="λ of Eq. 4")
    reward: float = Field(default=1.0, ge=0, description="weight of CLIP-S(x, p^a)")
    near_equal: float = Field(
        default=0.97, gt=0, le=1, description="cosine from which two captions are one"
    )
    temperature: float = Field(default=0.0, ge=0, description="logit scale; 0 is the encoder's")
    lr: float = Field(default=1e-3, gt=0, description="learning rate at its peak")
    weight_decay: float = Field(default=1e-2, ge=0, description="of the optimiser")
    batch_size: int = Field(default=64, ge=2, description="images of a step")
    epochs: int = Field(default=10, ge=1, description="times through all images")
    seed: Seed = Field(default=1, description="of weights and order; a run sets it by its seeds")
    max_images: int = Field(default=0, ge=0, description="training images to use; 0 is all")
    max_validation: int = Field(default=0, ge=0, description="validation images; 0 is all")


CAPTIONS_CONFIG = "captions/config.yaml"  # where a run of classification holds one as well


class CaptionRunConfig(Section):
    """What ``aape train-captions`` was asked for; kept as the run's ``config.yaml``."""

    task: Literal["captions"] = "captions"
    dataset: str
    root: str = ""
    encoder: EncoderConfig = Field(default_factory=EncoderConfig)
    captions: CaptionConfig = Field(default_factory=CaptionConfig)
    seeds: list[Seed] = Field(default=[1, 2, 3], min_length=1)


class DecodeConfig(Section):
    """How text is chosen from the model's distribution."""

    strategy: Literal["greedy", "beam", "sample"] = Field(
        default="greedy", description="how words are chosen"
    )
    beams: int = Field(default=4, ge=1, description="of the strategy beam")
    length_penalty: float = Field(default=1.0, ge=0, description="beam: divide by length to this")
    temperature: float = Field(default=1.0, gt=0, description="of the strategy sample")
    top_p: float = Field(
        default=1.0,
        gt=0,
        le=1,
        description="of the strategy sample: least likely words are left out",
    )
    max_tokens: int = Field(default=24, ge=1, description="longest text")
    batch_size: int = Field(default=32, ge=1, description="texts at once")
    seed: Seed = Field(default=0, description="of the strategy sample")


class PrefixConfig(Section):
    """How the linear maps are trained. LiMBeR's literal start is ``warm_start: false``."""

    grid: int = Field(default=2, ge=1, description="image tokens are pooled to grid × grid")
    aape_tokens: int = Field(
        default=1, ge=1, description="slots that the map of the AAPE fills; the paper has one"
    )
    warm_start: bool = Field(
        default=True,
        description="start at the ridge map onto the target words' embeddings, after ``opening``",
    )
    opening: str = Field(default="Image caption:", description="where the bias of the slots starts")
    ridge: float = Field(default=0.1, gt=0, description="of the warm start, relative")
    lr: float = Field(default=3e-2, gt=0, description="learning rate at its peak")
    weight_decay: float = Field(default=1e-2, ge=0, description="of the optimiser")
    batch_size: int = Field(default=16, ge=1, description="images of a step")
    steps: int = Field(default=100, ge=0, description="of training the prefix")


class CaptioningConfig(PrefixConfig):
    """Training of the prefix, language model and decoding."""

    language_model: str = Field(default="smollm2", description="smollm2, a folder, or a model id")
    decode: DecodeConfig = Field(default_factory=DecodeConfig)
    rows: list[Kind] = Field(
        default=list(KINDS), min_length=1, description="what the language model is shown"
    )
    java: bool = Field(default=False, description="METEOR and SPICE too, where Java has them")


class VqaConfig(PrefixConfig):
    """Training of the prefix, language model, prompt and decoding."""

    language_model: str = Field(default="smollm2", description="smollm2, a folder, or a model id")
    decode: DecodeConfig = Field(default_factory=lambda: DecodeConfig(max_tokens=8))
    rows: list[Kind] = Field(
        default=list(KINDS), min_length=1, description="what the language model is shown"
    )
    train_on: Literal["questions", "captions"] = Field(
        default="questions", description="questions, or captions alone (zero-shot)"
    )
    caption_steps: int = Field(
        default=100, ge=0, description="steps on captions, where there are some, before questions"
    )
    shots: list[NonNegativeInt] = Field(
        default=[0], min_length=1, description="answered questions shown"
    )
    vocabulary: int = Field(
        default=300, ge=0, description="closed list: the most frequent training answers; 0 is none"
    )
    wordnet: str = Field(default="", description="folder of WordNet's files, for WUPS")

    def on_captions(self) -> PrefixConfig:
        """Return the settings of the first stage; captioning shares its products if its are equal.

        Without questions to learn from it is the only stage, and gets all its steps.
        """
        values = {name: getattr(self, name) for name in PrefixConfig.model_fields}
        if self.train_on == "questions":
            values["steps"] = self.caption_steps
        return PrefixConfig.model_validate(values)
