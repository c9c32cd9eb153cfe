"""The commands that are disturbed: each with what must be there before, and what it reads again."""

from __future__ import annotations

from dataclasses import dataclass

BANK, OTHER = "toy.bank.parquet", "other.bank.parquet"
# the address of the server of answers is the same in every room: each has a network of its own, or
# rooms are entered one after the other
_ASK = (
    "generate-prompts", "-d", "toy", "--engine", "openai", "--model", "m", "--samples", "3",
    "--base-url", "{server}", "--set", "server.concurrency=2", "--set", "server.retries=2",
    "--set", "server.timeout={timeout}", "--set", "top_up.min_kept=4", "-o", BANK,
)  # fmt: skip
_LONG = ("train", "train --features", "sweep", "report", "eval retrieval", "train-captions")
_FEW = ("--seeds", "1", "--shots", "4", "--protocol", "fewshot", "--baselines", "gda")


@dataclass(frozen=True)
class Command:
    """One command line.

    ``before`` are commands that make what it needs. ``reads`` are patterns of files of ours that
    it, or a command of ``readers``, reads again once it is done: bits are flipped in them.
    """

    name: str
    words: tuple[str, ...]
    before: tuple[tuple[str, ...], ...] = ()
    reads: tuple[str, ...] = ()
    readers: tuple[tuple[str, ...], ...] = ()
    workers: bool = False
    asks: bool = False

    @property
    def weight(self) -> float:
        """How often it is chosen: less where it takes long, more where more can go wrong."""
        return 3.0 if self.asks else 0.25 if self.name in _LONG else 1.0


IMPORT = ("import-prompts", "published.json", "-d", "toy", "-o", BANK)
_WAFFLE = ("generate-prompts", "-d", "toy", "--control", "waffle", "--samples", "3", "-o")
_TRAIN = ("train", "--bank", BANK, "--root", "photos", *_FEW, "--out", "run")
_CAPTIONS = (
    "train-captions", "-d", "told", "--seeds", "1,2", "--out", "run",
    "--set", "captions.epochs=2", "--set", "captions.batch_size=8",
)  # fmt: skip

COMMANDS = (
    Command(
        "generate-prompts",
        _ASK,
        reads=(f"{BANK}*", f"{BANK}.answers/*", "home/**/*"),
        readers=(("bank", "verify", BANK), ("bank", "search", BANK, "a red bird", "--json")),
        asks=True,
    ),
    Command(
        "generate-prompts --control waffle",
        (*_WAFFLE, OTHER),
        reads=("*.parquet", "home/**/*"),
    ),
    Command("import-prompts", IMPORT, reads=("*.parquet", "home/**/*")),
    Command(
        "train",
        _TRAIN,
        before=(IMPORT,),
        reads=("run/**/*", "home/**/*", f"{BANK}*"),
        readers=(("predict", "run", "photos/red kite/0.png", "--json"), ("report", "run")),
    ),
    Command(
        "train --features",
        ("train", "--features", "features-1.safetensors", *_FEW, "--recipe", "staged",
         "--set", "recipe.epochs=1", "--out", "run"),
        reads=("run/**/*",),
    ),
    Command(
        "sweep",
        ("sweep", "features-1.safetensors", "features-2.safetensors", *_FEW, "--processes", "2",
         "--out", "runs"),
        reads=("runs/**/*",),
        workers=True,
    ),
    Command(
        "train-captions",
        _CAPTIONS,
        reads=("run/**/*", "home/**/*"),
        readers=(("eval", "retrieval", "run", "--json"),),
    ),
    Command(
        "eval retrieval",
        ("eval", "retrieval", "run"),
        before=(_CAPTIONS,),
        reads=("run/**/*", "home/**/*"),
    ),
    Command(
        "bank reindex", ("bank", "reindex", BANK, "--kind", "hnsw"), before=(IMPORT,),
        reads=(f"{BANK}*",), readers=(("bank", "search", BANK, "a red bird", "--json"),),
    ),
    Command(
        "bank merge",
        ("bank", "merge", BANK, OTHER, "--out", "both.bank.parquet"),
        before=(IMPORT, (*_WAFFLE, OTHER)),
        reads=("*.parquet*",),
    ),
    Command("bank export -f csv", ("bank", "export", BANK, "-f", "csv", "--out", "b.csv"),
            before=(IMPORT,)),
    Command("bank export -f parquet", ("bank", "export", BANK, "-f", "parquet", "--out",
                                       "b.parquet"), before=(IMPORT,)),
    Command("bank export -f hf", ("bank", "export", BANK, "-f", "hf", "--out", "hub"),
            before=(IMPORT,)),
    Command("bank export -f cupl-json", ("bank", "export", BANK, "--out", "b.json"),
            before=(IMPORT,)),
    Command("datasets add", ("datasets", "add", "photos", "--name", "mine", "--out", "mine.yaml",
                             "--force")),
    Command(
        "export",
        ("export", "run", "--format", "folder", "--out", "adapter"),
        before=(IMPORT, _TRAIN),
        reads=("run/adapter*", "run/config.yaml"),
    ),
    Command("report", ("report", "run"), before=(IMPORT, _TRAIN), reads=("run/results/*",)),
    Command(
        "search",
        ("search", "--encoder", "cheap", "photos", "a red bird", "--json"),
        reads=("home/**/*",),
    ),
    Command(
        "predict",
        ("predict", "run", "photos", "--out", "said.csv"),
        before=(IMPORT, _TRAIN),
        reads=("run/adapter*", "run/config.yaml", "home/**/*"),
    ),
    Command(
        "extend",
        ("extend", "run", "--features", "features-new.safetensors", "--shots", "4", "--out",
         "extended"),
        before=(("train", "--features", "features-1.safetensors", *_FEW, "--out", "run"),),
        reads=("extended/**/*", "run/adapter*"),
    ),
)  # fmt: skip
