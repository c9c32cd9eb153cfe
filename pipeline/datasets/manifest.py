"""The manifest of a data set: one YAML file with its names, prompts, layouts, splits and terms."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from ..config import Section
from ..files import hash_value
from ..paths import PlainName, RelativePath
from .readers.layouts import Layout
from .records import SPLITS, Split
from .splits import OWN_SHARES

Task = Literal["classification", "retrieval", "captioning", "vqa", "contrast"]


class ClassEntry(Section):
    """One class. In YAML a plain string stands for an entry with only a name."""

    name: str = Field(min_length=1)
    folder: str = Field(default="", description="name of its folder on disk, if not the class name")
    aliases: list[str] = Field(default=[], description="other spellings seen in public files")

    @model_validator(mode="before")
    @classmethod
    def _from_string(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value


class Query(Section):
    """A question to the language model.

    ``text`` may hold ``{class}``, ``{article}`` (a or an), ``{plural}`` and ``{category}``.
    """

    id: str = Field(min_length=1)
    text: str = Field(min_length=1)


# The five questions of CuPL (Pratt et al. 2023, generate_image_prompts.py), for any data set.
DEFAULT_QUERIES = (
    Query(id="describe", text="Describe what {article} {class} looks like"),
    Query(id="identify", text="How can you identify {article} {class}?"),
    Query(id="look", text="What does {article} {class} look like?"),
    Query(id="internet", text="Describe an image from the internet of {article} {class}"),
    Query(id="caption", text="A caption of an image of {article} {class}:"),
)

# Packages that hold a data set. No other may be named, for to look for one in a dotted package runs
# the code of its parents.
DATA_PACKAGES = frozenset({"easy_vqa"})

# CoOp's selection for prompt ensembling (IMAGENET_TEMPLATES_SELECT, found by CLIP's authors).
ENSEMBLE_TEMPLATES = (
    "itap of a {}.",
    "a bad photo of the {}.",
    "a origami {}.",
    "a photo of the large {}.",
    "a {} in a video game.",
    "art of the {}.",
    "a photo of the small {}.",
)


class Download(Section):
    """A file that can be fetched without an account."""

    url: str = Field(pattern=r"^https?://[^/\s]+/\S*$", description="http or https")
    file: RelativePath = Field(
        min_length=1, description="where it goes, relative to the root of the data set"
    )
    size: int = Field(default=0, ge=0, description="bytes; 0 where not published")
    sha256: str = ""
    extract: bool = True
    into: RelativePath = Field(default=".", description="folder for the members of an archive")
    inner: list[RelativePath] = Field(
        default=[], description="archives inside it, extracted where they lie, relative to into"
    )


class Splits(Section):
    """Published sizes, for ``check``. 0 is a split that the data set lacks."""

    train: int = Field(default=0, ge=0)
    val: int = Field(default=0, ge=0)
    test: int = Field(default=0, ge=0)
    unit: Literal["images", "questions"] = "images"
    source: str = Field(default="", description="which split this is, and where it comes from")


class Manifest(Section):
    """Everything that is known about a data set before its images are there."""

    name: PlainName
    title: str
    version: int = 1
    aliases: list[PlainName] = Field(default=[], description="other names it is asked for by")
    tasks: list[Task]
    category: str = Field(default="", description='e.g. "a type of car"')
    classes: list[ClassEntry] = Field(default=[], description="the position is the class id")
    classes_from: PlainName | Literal[""] = Field(
        default="", description="take the classes of another manifest"
    )
    class_folders: list[str] = Field(
        default=[], description="with classes_from: the subset, by folder, in this order"
    )
    templates: list[str] = Field(default=["a photo of a {}."], min_length=1)
    ensemble: list[str] = Field(
        default=list(ENSEMBLE_TEMPLATES), description="joined with templates for an ensemble"
    )
    queries: list[Query] = Field(default=list(DEFAULT_QUERIES))
    layouts: list[Layout] = Field(min_length=1, description="tried in this order")
    folders: list[PlainName] = Field(
        default=[], description="other names of its folder in a data root"
    )
    installed: list[str] = Field(
        default=[], description="where a package puts it: 'python:<package>/<folder>' or a path"
    )
    splits: Splits = Splits()
    shares: tuple[float, float, float] = Field(
        default=OWN_SHARES, description="of train, val, test, where the data set has no split"
    )
    licence: str = Field(min_length=1)
    homepage: str = ""
    downloads: list[Download] = Field(default=[])
    get: str = Field(default="", description="how to get what cannot be fetched")
    notes: str = ""

    @field_validator("installed")
    @classmethod
    def _known_package(cls, places: list[str]) -> list[str]:
        for place in places:
            kind, _, rest = place.partition(":")
            package, _, folder = rest.partition("/")
            if kind == "python":
                if package not in DATA_PACKAGES:
                    raise ValueError(f"{package!r} is no package that is known to hold a data set")
                if ".." in folder.split("/") or folder.startswith("/"):
                    raise ValueError(f"{place!r} leads out of the package")
        return places

    @field_validator("shares")
    @classmethod
    def _whole(cls, shares: tuple[float, float, float]) -> tuple[float, float, float]:
        if min(shares) < 0 or not shares[0] or not shares[2] or abs(sum(shares) - 1) > 1e-6:
            raise ValueError("shares of train, val and test must add up to 1; only val may be 0")
        return shares

    @field_validator("templates", "ensemble")
    @classmethod
    def _one_slot(cls, templates: list[str]) -> list[str]:
        for template in templates:
            if "{}" not in template:
                raise ValueError(f"template {template!r} has no {{}} for the class name")
        return templates

    @model_validator(mode="after")
    def _consistent(self) -> Manifest:
        ids = [query.id for query in self.queries]
        if len(set(ids)) != len(ids):
            raise ValueError("query ids must be unique")
        folders = [entry.folder for entry in self.classes if entry.folder]
        if len(set(folders)) != len(folders):
            raise ValueError("class folders must be unique")
        if "classification" in self.tasks and not (self.classes or self.classes_from):
            raise ValueError("a classification data set needs classes")
        return self

    @property
    def class_names(self) -> list[str]:
        """Class names in the order of their ids."""
        return [entry.name for entry in self.classes]

    @property
    def hash(self) -> str:
        """Hash of what decides prompts and class ids; terms, layouts and notes may change."""
        return hash_value(
            {
                "name": self.name,
                "version": self.version,
                "category": self.category,
                "classes": self.class_names,
                "templates": self.templates,
                "queries": [query.model_dump() for query in self.queries],
            }
        )

    def expected(self) -> dict[Split, int]:
        """Return the published sizes of the splits that the data set has."""
        sizes: dict[Split, int] = {split: getattr(self.splits, split) for split in SPLITS}
        return {split: size for split, size in sizes.items() if size}
