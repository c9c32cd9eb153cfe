"""Control banks: prompts of random words and characters, after WaffleCLIP (Roth et al. 2023).

If a bank of a language model is no better than its control, it was not the knowledge that helped.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import TYPE_CHECKING

from ..config import GenerationConfig, VerdictConfig
from ..datasets.manifest import Manifest
from ..files import exclusive, hash_value
from .engines.base import Answer
from .judge import Draft, Judge, check_overwrite, write_drafts
from .requests import ModelIdentity, Request
from .verdicts import ClassNames

if TYPE_CHECKING:
    from ..encoders.base import Encoder

_VERSION = "waffle-1"
_CHARACTERS = "abcdefghijklmnopqrstuvwxyz0123456789!#$%&*+-?@^~"
# Everyday words of many fields; none is the name of a class of the shipped data sets' domains.
_WORDS = """
able above account across action advice afternoon agree allow almost already always amount anger
answer appeal arrange arrive article attempt average avoid balance basic because become begin
behind belief below benefit beyond bother brief bring broad budget business careful carry cause
century chance change charge choice circumstance claim clear comfort common compare concern
condition consider contain content continue control correct cost credit custom daily debate decide
degree delay demand depend detail differ direct discuss doubt during early earn effort either else
enough entire equal error even event exact example except expect expense explain extra fact fair
faith familiar favour feature figure final follow forward free frequent future gather general
gentle global grade gradual guess habit happen hardly harm haste honest however idea ignore
improve include income increase indeed inform inquire instead intend involve issue join journey
keep kind knowledge later lesson level likely limit listen logic lucky main manage manner matter
maybe meaning measure memory method middle minute modern moment moral mostly motive narrow nearly
need neither normal notice novel obvious occur often opinion order origin other owner patient
pause perfect perhaps permit phrase pleasure policy polite position possible practice prefer
pretend prevent price probable process profit promise proper protest proud prove public purpose
quality question quick quiet quite rare rather reach ready reason recent record reduce regard
regret relate remain remark repeat reply request respect result return reward right routine rule
sample search season secret seldom sense serious service several share silence similar simple
sincere situation slight solve soon source special spend spirit standard statement still story
strange strict subject succeed sudden suggest supply suppose surprise system talent tend theory
though thought through together tomorrow topic total toward trade trust typical under unite until
usual vague value various version visit vote wage weekly welcome whether whole willing wonder
yesterday yet
"""


def waffle_texts(count: int, seed: int) -> list[str]:
    """Return ``count`` endings for a template: two random words, then two random character strings.

    The two kinds take turns, as in the paper, and all classes share them: nothing in them can tell
    one class from another.
    """
    source = random.Random(f"{_VERSION}:{seed}")
    words, texts = _WORDS.split(), []
    for index in range(count):
        if index % 2 == 0:
            parts = source.sample(words, 2)
        else:
            parts = ["".join(source.choices(_CHARACTERS, k=source.randint(3, 8))) for _ in range(2)]
        texts.append(", ".join(parts))
    return texts


def make_waffle(
    manifest: Manifest,
    out: str | Path | None = None,
    config: GenerationConfig | None = None,
    *,
    encoder: Encoder | None = None,
) -> Path:
    """Write the control of a bank: as many prompts a class as ``config`` would have asked for.

    Verdicts are off but for exact duplicates: the texts are meant to be nonsense.

    Raises:
        UserError: the disk is full, or another process makes the same bank.
    """
    config = config or GenerationConfig()
    bank = Path(out or f"{manifest.name}.waffle.bank.parquet")
    check_overwrite(bank, manifest.name)
    count = config.samples * max(1, len(manifest.queries))
    template = manifest.templates[0].rstrip(".")
    model = ModelIdentity("waffle", _VERSION, "")
    drafts = []
    for class_id, name in enumerate(manifest.class_names):
        for index, ending in enumerate(waffle_texts(count, config.seed)):
            key = hash_value([_VERSION, manifest.name, class_id, name, config.seed, index])[:32]
            text = f"{template.replace('{}', name)}, which has {ending}."
            request = Request(
                key=key,
                dataset=manifest.name,
                class_id=class_id,
                class_name=name,
                query_id="words" if index % 2 == 0 else "characters",
                query_template=f"{template}, which has …",
                prompt="",
                sample_index=index,
                seed=config.seed,
                sampling={},
            )
            drafts.append(Draft(request, model, Answer(key, text, "", 0, "waffle", _VERSION, "")))
    judge = Judge(encoder, WAFFLE_VERDICTS)
    with exclusive(f"{bank}.answers", "filling"):
        judge.judge(drafts, ClassNames(manifest.class_names), cut=False)
        write_drafts(bank, drafts, manifest, judge, note=Path(f"{bank}.answers") / "bank.json")
    return bank


WAFFLE_VERDICTS = VerdictConfig(
    min_words=1, near_duplicate=1, other_classes=False, language="", refusals=False, preambles=False
)
