"""The engine ``transformers``: a language model in this process, batched, sampled, seeded.

b rows of a batch, v vocabulary.

The sampling loop is our own, because ``generate`` draws all rows of a batch from one stream of
random numbers: the text of a row would depend on its neighbours. Here every row has its own
stream, and requests are sorted and cut into batches in an order that a rerun repeats, so that a
text is the same whether or not the work was interrupted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from ...config import GenerationConfig
from ..requests import ModelIdentity, Request
from .base import Answer, ClosingEngine, now

if TYPE_CHECKING:
    import torch


class TransformersEngine(ClosingEngine):
    """SmolLM2 by default, any causal language model folder otherwise."""

    name = "transformers"

    def __init__(self, config: GenerationConfig, model: ModelIdentity) -> None:
        import transformers

        from ..models import load_causal_lm

        self.version = transformers.__version__
        self._config = config
        self._model: Any
        self._tokenizer: Any
        self._model, self._tokenizer = load_causal_lm(model.source, config.device)
        ends = self._model.generation_config.eos_token_id
        ends = ends if isinstance(ends, list) else [ends, self._tokenizer.eos_token_id]
        self._ends = sorted({end for end in ends if end is not None})

    def generate(self, requests: Sequence[Request]) -> Iterator[list[Answer]]:
        """Answer in batches of equal work: see :class:`~.base.Engine`."""
        prompts = {request.key: self._encode(request) for request in requests}
        # Rows of like length share a batch, equal prompts stand together, and the key settles ties
        # in the same way at every rerun.
        order = sorted(
            requests,
            key=lambda request: (len(prompts[request.key]), request.prompt, request.key),
        )
        size = self._config.batch_size
        for start in range(0, len(order), size):
            batch = order[start : start + size]
            yield self._answer(batch, [prompts[request.key] for request in batch])

    def close(self) -> None:
        """Drop the model and give the GPU's memory back."""
        import torch

        self._model = None
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _encode(self, request: Request) -> list[int]:
        if getattr(self._tokenizer, "chat_template", None) is None:
            return self._tokenizer.encode(request.prompt)
        text = self._tokenizer.apply_chat_template(
            request.messages,
            tokenize=False,
            add_generation_prompt=True,
            **self._config.chat_template_kwargs,
        )
        return self._tokenizer.encode(text, add_special_tokens=False)

    def _answer(self, batch: list[Request], prompts: list[list[int]]) -> list[Answer]:
        sampling = batch[0].sampling
        seeds = [request.seed for request in batch]
        rows, finished = self._sample(prompts, seeds, sampling)
        answers = []
        for request, tokens, stopped in zip(batch, rows, finished):
            text = self._tokenizer.decode(tokens, skip_special_tokens=True)
            text = cut_at_stop(text, sampling["stop"])
            reason = "stop" if stopped else "length"
            answers.append(
                Answer(request.key, text, reason, len(tokens), self.name, self.version, now())
            )
        return answers

    def _sample(
        self, prompts: list[list[int]], seeds: list[int], sampling: dict[str, Any]
    ) -> tuple[list[list[int]], list[bool]]:
        """Return the new tokens of each row, and whether the row ended by itself."""
        import torch

        device = self._model.device
        longest, limit = max(map(len, prompts)), sampling["max_tokens"]
        # The samples of one prompt differ in their random numbers only: it is read once.
        unique = list(dict.fromkeys(map(tuple, prompts)))
        row_of = {prompt: row for row, prompt in enumerate(unique)}
        copies = torch.tensor([row_of[tuple(prompt)] for prompt in prompts], device=device)  # (b,)
        ids = torch.full((len(unique), longest), self._tokenizer.pad_token_id)
        mask = torch.zeros((len(unique), longest + limit), dtype=torch.long)
        for row, prompt in enumerate(unique):
            ids[row, longest - len(prompt) :] = torch.tensor(prompt)
            mask[row, longest - len(prompt) :] = 1
        ids, mask = ids.to(device), mask.to(device)
        positions = (mask[:, :longest].cumsum(1) - 1).clamp_min(0)
        uniform = torch.stack([_stream(seed, limit) for seed in seeds]).to(device)  # (b, limit)
        new: list[list[int]] = [[] for _ in prompts]
        done = [False] * len(prompts)
        with torch.inference_mode():
            output = self._model(
                input_ids=ids,
                attention_mask=mask[:, :longest],
                position_ids=positions,
                use_cache=True,
                logits_to_keep=1,
            )
            cache = output.past_key_values
            cache.batch_select_indices(copies)
            logits = output.logits[copies, -1]  # (b, v)
            mask, positions = mask[copies], positions[copies, -1:]
            for step in range(limit):
                picked = pick_tokens(logits, uniform[:, step], sampling)  # (b,)
                for row, token in enumerate(picked.tolist()):
                    if done[row]:
                        continue
                    if token in self._ends:
                        done[row] = True
                        continue
                    new[row].append(token)
                    done[row] = self._stops(new[row], sampling["stop"])
                if all(done) or step + 1 == limit:
                    break
                positions = positions + 1
                logits = self._model(
                    input_ids=picked[:, None],
                    attention_mask=mask[:, : longest + step + 1],
                    position_ids=positions,
                    past_key_values=cache,
                    use_cache=True,
                ).logits[:, -1]
        return new, done

    def _stops(self, tokens: list[int], stop: Sequence[str]) -> bool:
        if not stop:
            return False
        tail = self._tokenizer.decode(tokens[-16:])
        return any(text in tail for text in stop)


def _stream(seed: int, count: int) -> torch.Tensor:
    """Return the random numbers of one row: (count,) float64 in [0, 1)."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, generator=generator, dtype=torch.float64)


def pick_tokens(
    logits: torch.Tensor, uniform: torch.Tensor, sampling: dict[str, Any]
) -> torch.Tensor:
    """Draw one token a row by inverting the distribution function: (b, v), (b,) to (b,).

    ``uniform`` decides the draw, so a row's token depends on nothing else. Temperature 0 is greedy.
    """
    import torch

    if sampling["temperature"] == 0:
        return logits.argmax(1)
    chances = torch.softmax(logits.float() / sampling["temperature"], dim=1)
    if sampling["top_p"] < 1:
        ordered, index = chances.sort(dim=1, descending=True, stable=True)
        before = ordered.cumsum(1) - ordered  # mass of the more likely tokens
        ordered[before >= sampling["top_p"]] = 0
        chances = torch.zeros_like(chances).scatter_(1, index, ordered)
    mass = chances.double().cumsum(1)  # (b, v)
    target = (uniform * mass[:, -1])[:, None]
    return torch.searchsorted(mass, target, right=True)[:, 0].clamp_max(mass.shape[1] - 1)


def cut_at_stop(text: str, stop: Sequence[str]) -> str:
    """Return the text up to the first stop text, as all engines do."""
    ends = [text.find(mark) for mark in stop if mark in text]
    return text[: min(ends)] if ends else text
