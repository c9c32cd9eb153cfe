"""The configuration of stage one, and the rules every section of the tree obeys.

The whole tree is :class:`aape.adapter.config.Config`; the sections here are the part of it that
makes a bank. A section is frozen, refuses unknown keys, and can be written as YAML that reads back
to an equal section.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from .errors import UserError, unknown_name
from .files import require_document, unreadable

S = TypeVar("S", bound="Section")
# what torch, numpy and language-model servers all take
Seed = Annotated[int, Field(ge=0, lt=2**32)]
# items of lists
NotNegative = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
# Arguments of vllm.LLM that name code to import or let a model folder bring its own.
_NAMES_CODE = re.compile(
    r"model|tokenizer|trust_remote_code|distributed_executor_backend|logits_processors|middleware"
    r"|hf_overrides|kv_transfer_config|model_loader_extra_config|.*_cls|.*plugin.*"
)
# values of a file where aliases are written out; ImageNet's manifest has some 10,000
_LARGEST = 2_000_000
# characters of a number: those in base 60 take a time that grows with the square of their length,
# and Python writes out no whole number of more than 4,300 digits
_LONGEST_NUMBER = 100
_NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
# what PyYAML's own constructors raise at a value that is none of its tag, as in "!!bool perhaps"
_NO_VALUE = (LookupError, AttributeError, TypeError, ArithmeticError)
# a file that begins with the first line must end with the last, else it was cut short
_WHOLE = ('# aape: a whole file ends with the line "# end"', "# end")
# the safe loader in C where PyYAML has it: ten times faster on a list of 1,000 classes
_SafeLoader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class Section(BaseModel):
    """A part of the configuration tree: frozen, and unknown keys are errors."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, protected_namespaces=(), allow_inf_nan=False
    )

    @classmethod
    def parse(cls: type[S], values: Any, origin: str, within: str = "") -> S:
        """Validate ``values``, naming ``origin`` and the offending key in the error.

        ``within`` is the name of the section that they are, if the origin holds others too.

        Raises:
            UserError: a key is unknown or a value is out of range.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            problems = [
                f"{_named(problem['loc'], within) or 'top level'}: {problem['msg']}"
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
        """Return every value, defaults included, as YAML in the order of declaration.

        The first and the last line are marks by which :func:`read_yaml` finds a file that was cut:
        cut at the end of a line it would else be read with defaults in place of what is missing.
        """
        text = yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
        return f"{_WHOLE[0]}\n{text}{_WHOLE[1]}\n"


def _named(place: tuple[int | str, ...], within: str) -> str:
    return ".".join(str(part) for part in ([within] if within else []) + list(place))


def load_section(cls: type[S], kind: str, name: str, shipped: Mapping[str, S]) -> S:
    """Return a shipped section by its name, or one from a YAML file.

    Raises:
        UserError: no shipped one has that name, or the file is not such a section.
    """
    if name in shipped:
        return shipped[name]
    if Path(name).suffix in (".yaml", ".yml"):
        return cls.from_yaml(name)
    raise unknown_name(kind, name, shipped)


def read_yaml(path: str | Path) -> Any:
    """Read YAML with the safe loader.

    Raises:
        UserError: the file is absent, cannot be read, is a pipe or a device, is not YAML, or was
            cut short.
    """
    try:
        require_document(Path(path))
        text = Path(path).read_text(encoding="utf-8")
        lines = text.splitlines()
        if lines and lines[0] == _WHOLE[0] and _WHOLE[1] not in lines:
            raise UserError(
                f"{path} was cut short: its last line is missing.",
                f"Restore it, or add the line {_WHOLE[1]!r} if you know that nothing is missing.",
            )
        return load_yaml(text)
    except OSError as error:
        raise unreadable(error, path) from error
    except (yaml.YAMLError, UnicodeDecodeError, ValueError) as error:
        raise UserError(f"{path} is not valid YAML: {error}.") from error


def load_yaml(text: str) -> Any:
    """Return what YAML says, read by the safe loader, if it says it once and ends.

    Raises:
        yaml.YAMLError: it is no YAML, a name stands twice in one mapping (the last would win
            silently), a value is none of its tag, a number is absurdly long, or something holds
            itself or is nested or repeated without measure.

    >>> load_yaml("{a: [1, 2]}")
    {'a': [1, 2]}
    """
    loader = _SafeLoader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _size(node, {})
        return loader.construct_document(node)
    except RecursionError as error:
        raise yaml.YAMLError("it is nested too deeply") from error
    except _NO_VALUE as error:
        raise yaml.YAMLError("a value is not of the kind that its tag says") from error
    finally:
        loader.dispose()


def _size(node: yaml.Node, sizes: dict[int, int]) -> int:
    """Return how many values a node stands for where every alias is written out."""
    if isinstance(node, yaml.ScalarNode):
        if node.tag in _NUMBERS and len(node.value) > _LONGEST_NUMBER:
            line = node.start_mark.line + 1
            raise yaml.YAMLError(f"a number has more than {_LONGEST_NUMBER} digits (line {line})")
        return 1
    if node.tag in _NUMBERS:  # {=: 1} stands for 1 there, and would pass unmeasured
        raise yaml.YAMLError(f"a number is no list (line {node.start_mark.line + 1})")
    known = sizes.get(id(node))
    if known == 0:  # begun and not ended
        raise yaml.YAMLError(f"something holds itself (line {node.start_mark.line + 1})")
    if known is not None:
        return known
    sizes[id(node)] = 0
    inner = list(node.value)
    if isinstance(node, yaml.MappingNode):
        _refuse_repeated([key for key, _ in inner])
        inner = [part for pair in inner for part in pair]
    size = 1 + sum(_size(part, sizes) for part in inner)
    if size > _LARGEST:
        raise yaml.YAMLError("it stands for too many values")
    sizes[id(node)] = size
    return size


def _refuse_repeated(keys: list[yaml.Node]) -> None:
    seen: set[tuple[str, str]] = set()
    for key in keys:
        if isinstance(key, yaml.ScalarNode):
            name = (key.tag, key.value)
            if name in seen and key.value != "<<":
                line = key.start_mark.line + 1
                raise yaml.YAMLError(f"{key.value} stands there twice (again in line {line})")
            seen.add(name)


class SamplingConfig(Section):
    """How the language model samples. Defaults: CuPL's temperature (Huang et al., section 4)."""

    temperature: float = Field(
        default=0.99, ge=0, description="of the language model; 0 takes the likeliest word"
    )
    top_p: float = Field(
        default=0.95, gt=0, le=1, description="below 1: small models wander off in the far tail"
    )
    max_tokens: int = Field(default=60, ge=1, description="longest answer")
    stop: tuple[str, ...] = Field(default=(), description="texts at which an answer ends")


class VllmConfig(Section):
    """Options passed to vLLM's ``LLM``; what is left empty is vLLM's own choice."""

    python: str = Field(
        default="", description="always empty: --engine-python or $AAPE_VLLM_PYTHON name it"
    )
    tensor_parallel_size: int = Field(default=1, ge=1, description="GPUs that share the model")
    dtype: str = Field(default="auto", description="of the weights; auto is the model's")
    max_model_len: int = Field(default=1024, ge=64, description="tokens of question and answer")
    quantization: str = Field(default="", description="method of vLLM; empty is the model's own")
    gpu_memory_utilization: float = Field(
        default=0.85, gt=0, le=1, description="share of the memory that vLLM may take"
    )
    enforce_eager: bool | None = Field(default=None, description="without CUDA graphs")
    options: dict[str, Any] = Field(default={}, description="any other argument of vllm.LLM")
    start_timeout: float = Field(default=1800, gt=0, description="seconds to load the model")

    @field_validator("python")
    @classmethod
    def _never_from_a_file(cls, python: str) -> str:
        if python:
            raise ValueError(
                "a program to run is not taken from a file; give --engine-python or set"
                " AAPE_VLLM_PYTHON"
            )
        return python

    @field_validator("options")
    @classmethod
    def _no_code(cls, options: dict[str, Any]) -> dict[str, Any]:
        for name in options:
            if _NAMES_CODE.fullmatch(name):
                raise ValueError(f"{name!r} can make vLLM run code and is not taken from a file")
        return options


class ServerConfig(Section):
    """An OpenAI-compatible server. The key is read from ``OPENAI_API_KEY``."""

    base_url: str = Field(default="", description="empty: $OPENAI_BASE_URL or api.openai.com")
    concurrency: int = Field(default=16, ge=1, description="requests in flight")
    timeout: float = Field(default=120, gt=0, description="seconds for one request")
    retries: int = Field(default=6, ge=0, description="further tries of a failed request")
    send_seed: bool = Field(default=True, description="off for servers that refuse a seed")


class RayConfig(Section):
    """Generation on a Ray cluster: every actor holds one engine."""

    address: str = Field(default="", description="empty: $RAY_ADDRESS or a local cluster")
    engine: Literal["auto", "vllm", "transformers"] = Field(
        default="auto", description="of each actor"
    )
    actors: int = Field(default=1, ge=1, description="engines at once")
    cpus: float = Field(default=1, gt=0, description="processors of an actor")
    gpus: float = Field(default=0, ge=0, description="GPUs of an actor")
    batch_size: int = Field(default=64, ge=1, description="requests handed to an actor at once")


class VerdictConfig(Section):
    """When a prompt is kept. A prompt that is not kept stays in the bank with its verdict."""

    max_sentences: int = Field(default=1, ge=1, description="an answer is cut after this many")
    max_tokens: int = Field(default=77, ge=8, description="in the encoder's own tokenizer")
    min_words: int = Field(default=4, ge=1, description="fewer are a fragment")
    near_duplicate: float = Field(
        default=0.98, ge=0, le=1, description="cosine to an earlier prompt of the class; 1: off"
    )
    other_classes: bool = Field(default=True, description="drop texts that name another class")
    language: str = Field(default="en", description="language asked for; empty: any")
    refusals: bool = Field(default=True, description="drop answers that refuse")
    preambles: bool = Field(default=True, description="drop what only announces an answer")


class TopUpConfig(Section):
    """More samples for a class that was left with too few kept prompts."""

    min_kept: int = Field(default=5, ge=0, description="kept prompts a class should have; 0: off")
    max_samples: int = Field(
        default=5, ge=0, description="further samples per query that may be spent on a class"
    )


class OwnQueriesConfig(Section):
    """Queries that the language model writes by itself, from the sentence ``about``."""

    answers: int = Field(default=4, ge=1, le=50, description="how often queries are asked for")
    per_answer: int = Field(default=10, ge=1, le=50, description="queries that an answer may hold")
    max_tokens: int = Field(default=300, ge=16, description="longest answer")
    temperature: float = Field(
        default=0.7, ge=0, description="tamer than that of descriptions: a form is to be kept"
    )
    least: int = Field(
        default=3, ge=1, description="with fewer valid ones those of the manifest are asked instead"
    )
    most: int = Field(default=10, ge=1, le=100, description="valid ones that are used")


class ContrastConfig(Section):
    """Prompts that say how a class differs from those it is taken for."""

    by: Literal["off", "auto", "texts", "photos"] = Field(
        default="off",
        description="which classes are alike: their texts, the training photos, or auto",
    )
    others: int = Field(default=2, ge=1, le=20, description="classes that each is set apart from")
    photos: int = Field(default=16, ge=1, description="training photos a class that are looked at")


class GenerationConfig(Section):
    """Which language model writes the prompts, through which engine, and how many."""

    engine: Literal["auto", "vllm", "transformers", "openai", "ray"] = Field(
        default="auto", description="what runs the language model"
    )
    model: str = Field(default="auto", description="smollm2, a folder, or a model id")
    revision: str = Field(default="", description="of the model on its hub")
    samples: int = Field(default=10, ge=1, description="samples per query and class")
    seed: Seed = Field(default=0, description="other texts, as reproducible")
    instruction: str = Field(
        default="Answer with one short sentence about what it looks like.",
        description="appended to every query; empty: the query alone, as CuPL did",
    )
    about: str = Field(
        default="",
        max_length=300,
        description="one sentence about the photos, from which the model writes its own queries",
    )
    own_queries: OwnQueriesConfig = Field(default_factory=OwnQueriesConfig)
    contrast: ContrastConfig = Field(default_factory=ContrastConfig)
    other_names: int = Field(
        default=0, ge=0, le=100, description="how often another name of a class is asked for"
    )
    sampling: SamplingConfig = Field(default_factory=SamplingConfig)
    structured_output: bool = Field(
        default=False, description="force the form {description: …} (vllm and openai)"
    )
    chat_template_kwargs: dict[str, Any] = Field(
        default={"enable_thinking": False}, description="for the chat template of the model"
    )
    batch_size: int = Field(default=32, ge=1, description="of the transformers engine")
    device: str = Field(default="auto", description="of the transformers engine")
    vllm: VllmConfig = Field(default_factory=VllmConfig)
    server: ServerConfig = Field(default_factory=ServerConfig)
    ray: RayConfig = Field(default_factory=RayConfig)
    verdicts: VerdictConfig = Field(default_factory=VerdictConfig)
    top_up: TopUpConfig = Field(default_factory=TopUpConfig)


class EncodingRayConfig(Section):
    """Encoding on a Ray cluster: every actor holds the encoder and reads the photos itself.

    This process decides what is lacking and writes the cache, so that the nodes need to see the
    photos (under the same paths) and the encoder's weights, and nothing else of this machine. Which
    cluster it is no file can say: that of $RAY_ADDRESS, else of this machine, else a new one here.
    """

    actors: int = Field(default=0, ge=0, description="encoders at once; 0: encode without Ray")
    cpus: float = Field(default=1, gt=0, description="processors of an actor")
    gpus: float = Field(default=0, ge=0, description="GPUs of an actor; 0: it encodes on the CPU")


class EncoderConfig(Section):
    """Which dual encoder embeds texts and images, and where it runs."""

    name: str = Field(default="auto", description="lite, MODEL/TAG of open_clip, or auto")
    checkpoint: str = Field(default="", description="local file of its weights")
    device: str = Field(default="auto", description="auto, cpu, cuda, cuda:1 …")
    batch_size: int = Field(default=64, ge=1, description="images or texts at once")
    workers: int | None = Field(
        default=None, ge=0, description="processes that read photos; all cores if it is empty"
    )
    strict: bool = Field(
        default=False, description="stop at a photo that cannot be read; else it is left out"
    )
    # both of a machine, not of a run: they are in no record
    compile: bool = Field(
        default=False,
        exclude=True,
        description="compile the image tower of an open_clip model where that measures faster;"
        " takes a minute or two, worth while from some 100,000 photos on",
    )
    ray: EncodingRayConfig = Field(default_factory=EncodingRayConfig, exclude=True)
