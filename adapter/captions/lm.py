"""A causal language model that is never trained, seen through its input embeddings (w wide)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ...pipeline.errors import UserError


class FrozenLM:
    """A causal language model that is never trained, seen through its input embeddings."""

    def __init__(self, model: Any, tokenizer: Any, name: str) -> None:
        self.model, self.tokenizer, self.name = model, tokenizer, name
        self.embedding: Tensor = model.get_input_embeddings().weight
        self.width = self.embedding.shape[1]
        self.scale = float(self.embedding[::16].float().pow(2).mean().sqrt())
        self.context = int(getattr(model.config, "max_position_embeddings", 1 << 30))
        self.newline = self._end_of_a_line()
        # models with a start token use it as the place that attention rests on; they need it
        first = model.config.bos_token_id
        self.start = self.embed([first] if isinstance(first, int) else [])  # (0 or 1, w)
        ends = {self.newline, tokenizer.eos_token_id, model.config.eos_token_id}
        self.stops = {token for token in ends if isinstance(token, int)}

    @classmethod
    def load(cls, spec: str = "smollm2", device: str = "auto") -> FrozenLM:
        """Load ``smollm2``, a folder, or a model of the hub (see pipeline.language_models)."""
        from ...pipeline.encoders.base import fast_dtype, pick_device
        from ...pipeline.prompts.models import load_causal_lm

        place = pick_device(device)
        return cls(*load_causal_lm(spec, str(place), fast_dtype(place)), spec)

    def _end_of_a_line(self) -> int:
        """Return the token of a line break; the end token where a tokenizer drops line breaks.

        Raises:
            UserError: the model has neither.
        """
        if found := self.ids("\n"):
            return found[-1]
        for token in (self.tokenizer.eos_token_id, self.model.config.eos_token_id):
            if isinstance(token, int):
                return token
        raise UserError(
            f"The language model {self.name} has neither a line break nor an end token.",
            "Texts could not end: use another language model.",
        )

    @property
    def device(self) -> torch.device:
        """Where the model lives."""
        return self.embedding.device

    def ids(self, text: str) -> list[int]:
        """Return the tokens of a piece of text, without special tokens."""
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def embed(self, ids: Sequence[int]) -> Tensor:
        """Return the input embeddings (l, w) of tokens."""
        index = torch.tensor(list(ids), dtype=torch.long, device=self.device)
        return F.embedding(index, self.embedding)

    def check_length(self, length: int) -> None:
        """Raise :class:`UserError` if a sequence does not fit into the model's context."""
        length += len(self.start)
        if length > self.context:
            raise UserError(
                f"A prefix with its text needs {length} positions; {self.name} has {self.context}.",
                "Use fewer image tokens (a smaller grid), fewer shots, or another language model.",
            )
