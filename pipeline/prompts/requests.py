"""What is asked of the language model: queries × classes × samples, each with a key of its own.

The key decides what a rerun still has to ask: it changes with anything that could change the text,
and with nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from ..config import GenerationConfig, read_yaml
from ..datasets.manifest import Manifest, Query
from ..errors import UserError
from ..files import hash_value, require_document, unreadable
from .english import article, plural

if TYPE_CHECKING:
    from pathlib import Path

# Bumped when the words around a query change, so that texts asked for otherwise are not reused.
PROMPT_FORMAT = "chat-1"
Kind = Literal["description", "contrast", "name", "queries"]
_SLOT = re.compile(r"\{(class|article|plural|category|)\}")
_SLOTS = {"{}", "{class}", "{article}", "{plural}", "{category}"}
_NO_CATEGORY = re.compile(r",?\s*\{category\},?")


@dataclass(frozen=True, slots=True)
class ModelIdentity:
    """A language model as requests and banks know it; ``source`` is where engines load it from."""

    name: str
    revision: str
    source: str


@dataclass(frozen=True, slots=True)
class Request:
    """One sample asked of the language model. ``prompt`` is the message of the user.

    ``kind`` says what the answer is: a description of a class, what sets it apart from another one
    (:mod:`.contrast`), another name of it (:mod:`.other_names`), or queries (:mod:`.own_queries`).
    """

    key: str
    dataset: str
    class_id: int
    class_name: str
    query_id: str
    query_template: str
    prompt: str
    sample_index: int
    seed: int
    sampling: dict[str, Any]
    kind: Kind = "description"

    @property
    def messages(self) -> list[dict[str, str]]:
        """The conversation, in the form that every chat interface takes."""
        return [{"role": "user", "content": self.prompt}]


def fill_query(text: str, class_name: str, category: str = "") -> str:
    """Fill ``{class}`` (or ``{}``), ``{article}``, ``{plural}`` and ``{category}``.

    A class name is data: braces in it stay as they are. Without a category its slot goes, with the
    commas around it.

    Raises:
        UserError: the text has another slot, or none for the class.

    >>> fill_query("Describe {article} {class}, {category}.", "Audi TT", "a type of car")
    'Describe an Audi TT, a type of car.'
    """
    unknown = set(re.findall(r"\{[^{}]*\}", text)) - _SLOTS
    if unknown or not any(slot in text for slot in ("{}", "{class}", "{plural}")):
        problem = f"has the unknown slot {min(unknown)}" if unknown else "does not name the class"
        raise UserError(
            f"The query {text!r} {problem}.",
            "Slots are {class}, {article}, {plural} and {category}.",
        )
    if not category:
        text = _NO_CATEGORY.sub("", text)
    values = {
        "": class_name,
        "class": class_name,
        "article": article(class_name),
        "plural": plural(class_name),
        "category": category,
    }
    return _SLOT.sub(lambda slot: values[slot.group(1)], text)


def read_queries(path: str | Path) -> list[Query]:
    """Read the user's own queries: a text file with one a line, or a YAML list of texts or entries.

    Raises:
        UserError: the file is absent, empty, or holds something else.
    """
    from pathlib import Path

    path = Path(path)
    if path.suffix in (".yaml", ".yml", ".json"):
        values = read_yaml(path)
    else:
        try:
            require_document(path)
            lines = path.read_text(encoding="utf-8-sig").splitlines()
        except OSError as error:
            raise unreadable(error, path) from error
        except UnicodeDecodeError as error:
            raise UserError(f"{path} is not a text file of queries: {error}.") from error
        lines = [line.strip() for line in lines]
        values = [line for line in lines if line and not line.startswith("#")]
    if isinstance(values, dict):
        values = values.get("queries")
    if not isinstance(values, list) or not values:
        raise UserError(f"{path} holds no queries.", "Write one a line.")
    queries = []
    for number, value in enumerate(values, 1):
        entry = {"id": f"q{number}", "text": value} if isinstance(value, str) else value
        query = Query.parse(entry, f"query {number} of {path}")
        fill_query(query.text, "thing", "a type of thing")
        queries.append(query)
    if len({query.id for query in queries}) != len(queries):
        raise UserError(f"{path} uses a query id twice.")
    return queries


def build_requests(
    manifest: Manifest,
    config: GenerationConfig,
    model: ModelIdentity,
    *,
    queries: Sequence[Query] | None = None,
    samples: Iterable[int] | None = None,
    class_ids: Iterable[int] | None = None,
) -> list[Request]:
    """Return the requests of a data set, ordered by class, sample and query.

    ``samples`` are sample indices (default ``range(config.samples)``): later ones never change the
    key, seed or text of earlier ones.

    Raises:
        UserError: the data set has no classes, or a query has an unknown slot.
    """
    if not manifest.class_names:
        raise UserError(
            f"The data set {manifest.name!r} has no classes to describe.",
            "Its prompts are the captions of its images; nothing is generated for it.",
        )
    queries = list(queries or manifest.queries)
    samples = list(range(config.samples) if samples is None else samples)
    chosen = range(len(manifest.class_names)) if class_ids is None else class_ids
    sampling = sampling_values(config)
    requests = []
    for class_id in chosen:
        name = manifest.class_names[class_id]
        prompts = [fill_query(asked(query, config), name, manifest.category) for query in queries]
        for sample in samples:
            for query, prompt in zip(queries, prompts):
                requests.append(
                    one_request(
                        manifest, config, model, class_id, query, asked(query, config), prompt,
                        sampling, sample,
                    )
                )  # fmt: skip
    return requests


def one_request(
    manifest: Manifest,
    config: GenerationConfig,
    model: ModelIdentity,
    class_id: int,
    query: Query,
    template: str,
    prompt: str,
    sampling: dict[str, Any],
    sample: int,
    kind: Kind = "description",
) -> Request:
    """Return one request with its key and seed; ``class_id`` -1 is about no class in particular."""
    content = {
        "format": PROMPT_FORMAT,
        "model": model.name,
        "revision": model.revision,
        "dataset": manifest.name,
        "class_id": class_id,
        "query": [query.id, template],
        "prompt": prompt,
        "sampling": sampling,
        "template": config.chat_template_kwargs,
        "seed": config.seed,
        "sample": sample,
    }
    key = hash_value(content)[:32]
    return Request(
        key=key,
        dataset=manifest.name,
        class_id=class_id,
        class_name=manifest.class_names[class_id] if class_id >= 0 else "",
        query_id=query.id,
        query_template=template,
        prompt=prompt,
        sample_index=sample,
        seed=sample_seed(key),
        sampling=sampling,
        kind=kind,
    )


def asked(query: Query, config: GenerationConfig) -> str:
    """Return the query as it is asked: with the instruction of the configuration behind it.

    A form that is forced on a model is also named, since a model that does not know of it writes
    its answer outside.
    """
    text = f"{query.text} {config.instruction}".strip()
    if config.structured_output:
        return f'{text} Answer as JSON with one field, "description".'
    return text


def sampling_values(config: GenerationConfig) -> dict[str, Any]:
    """Return the sampling settings that decide a text, as JSON-able values."""
    values = config.sampling.model_dump(mode="json")
    if config.structured_output:
        values["structured_output"] = True
    return values


def sample_seed(key: str) -> int:
    """Return the seed of one sample: 31 bits of its key.

    Seeds that are hashed share no runs of numbers, as seed, seed + 1, … of a sampler would.
    """
    return int(key[:8], 16) & 0x7FFFFFFF


def as_json(request: Request) -> dict[str, Any]:
    """Return what an engine in another process needs of a request."""
    values = asdict(request)
    return {name: values[name] for name in ("key", "seed", "sampling")} | {
        "messages": request.messages
    }
