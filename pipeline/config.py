"""The configuration of stage one, and the rules every section of the tree obeys.

The whole tree is :class:`aape.adapter.config.Config`; the sections here are the part of it that
makes a bank. A section is frozen, refuses unknown keys, and can be written as YAML that reads back
to an equal section.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from .errors import UserError

S = TypeVar("S", bound="Section")


class Section(BaseModel):
    """A part of the configuration tree: frozen, and unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    @classmethod
    def parse(cls: type[S], values: Any, origin: str) -> S:
        """Validate ``values``, naming ``origin`` and the offending key in the error.

        Raises:
            UserError: a key is unknown or a value is out of range.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            problems = [
                f"{'.'.join(str(part) for part in problem['loc']) or 'top level'}: {problem['msg']}"
                for problem in error.errors()
            ]
            raise UserError(f"{origin} is not valid: {'; '.join(problems[:5])}.") from error

    @classmethod
    def from_yaml(cls: type[S], path: str | Path) -> S:
        """Read a section from a YAML file.

        Raises:
            UserError: the file is absent, is not YAML, or does not validate.
        """
        return cls.parse(read_yaml(path), str(path))

    def to_yaml(self) -> str:
        """Return every value, defaults included, as YAML in the order of declaration."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def read_yaml(path: str | Path) -> Any:
    """Read YAML with the safe loader.

    Raises:
        UserError: the file is absent or is not YAML.
    """
    try:
        return yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid YAML: {error}.") from error


class SamplingConfig(Section):
    """How the language model samples. Defaults: CuPL's temperature (Huang et al., section 4)."""

    temperature: float = Field(default=0.99, ge=0)
    top_p: float = Field(default=1.0, gt=0, le=1)
    max_tokens: int = Field(default=60, ge=1)


class GenerationConfig(Section):
    """Which language model writes the prompts, through which engine, and how many."""

    engine: Literal["auto", "vllm", "transformers", "openai", "ray"] = "auto"
    model: str = "auto"
    revision: str = ""
    samples: int = Field(default=10, ge=1, description="samples per query and class")
    seed: int = 0
    sampling: SamplingConfig = Field(default_factory=SamplingConfig)
    batch_size: int = Field(default=32, ge=1)


class EncoderConfig(Section):
    """Which dual encoder embeds texts and images, and where it runs."""

    name: str = "auto"
    checkpoint: str = ""
    device: str = "auto"
    batch_size: int = Field(default=64, ge=1)
    workers: int = Field(default=2, ge=0, description="image decoding processes")
