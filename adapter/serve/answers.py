"""What the server answers, as its OpenAPI describes it."""

from __future__ import annotations

from pydantic import BaseModel, Field


class Problem(BaseModel):
    """What is wrong, and what to do next."""

    error: str
    hint: str = ""


class Label(BaseModel):
    """A class and its probability among those asked for."""

    label: str
    class_id: int | None = Field(default=None, description="of the data set; none for other names")
    p: float = Field(ge=0, le=1.0001)
    trained: bool = Field(description="false for a class that is judged by its name alone")


class Labels(BaseModel):
    """The likeliest classes of a photo, best first."""

    labels: list[Label]


class ExplainedLabel(Label):
    """A class with the terms of its logit; they add up to it."""

    logit: float
    terms: dict[str, float]


class Sentence(BaseModel):
    """A sentence of the run's bank near the photo."""

    text: str
    class_name: str
    cosine: float


class Explanation(BaseModel):
    """Why a photo is called what it is called."""

    labels: list[ExplainedLabel]
    zero_shot: list[Label] = Field(description="what the class texts alone say, without adapter")
    sentences: list[Sentence] = Field(description="of the bank, nearest to the photo")
    aape_sentences: list[Sentence] = Field(description="of the bank, nearest to its AAPE")
    notes: list[str] = []


class Found(BaseModel):
    """A photo that was found, by its name below the folder that is served."""

    name: str
    cosine: float


class Hits(BaseModel):
    """Photos that were found, best first."""

    hits: list[Found]


class Text(BaseModel):
    """What a language model says; ``ended`` is false where it was cut."""

    text: str
    ended: bool


class Health(BaseModel):
    """That the server is up, what it can be asked, and whether it wants a token."""

    status: str = "ok"
    version: str
    offers: list[str]
    token: bool
