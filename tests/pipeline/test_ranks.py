"""Processes that work as one, without a launcher: what they say to each other and of each other."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from aape.pipeline.errors import UserError
from aape.pipeline.ranks import Group, _Joined, _others


class Three(Group):
    """A group whose other processes always answer the same."""

    size = 3

    def __init__(self, *others: Any) -> None:
        self.others = list(others)

    def collect(self, value: Any) -> list[Any]:
        return [value, *self.others]


def test_where_processes_differ_the_first_such_is_named() -> None:
    Three("a", "a").agree("a", "the encoder")
    with pytest.raises(UserError, match=r"0 and 2 do not agree on the encoder: a and b\. All need"):
        Three("a", "b").agree("a", "the encoder")
    with pytest.raises(UserError, match="0 and 1 do not agree on the number of epochs: 3 and 4"):
        Three(4, 4).agree(3, "the number of epochs")


def test_tensors_of_all_shapes_travel_as_one() -> None:
    group = _Joined.__new__(_Joined)  # of no launcher
    seen: list[torch.Tensor] = []

    def doubled(flat: torch.Tensor) -> None:
        seen.append(flat.clone())
        flat.mul_(2)

    tensors = [torch.arange(6.0).reshape(2, 3), torch.tensor(7.0), torch.zeros(0, 2), torch.ones(2)]
    tensors[0].requires_grad_()
    group._flat(tensors, doubled)
    assert seen[0].tolist() == [0, 1, 2, 3, 4, 5, 7, 1, 1]
    assert tensors[0].tolist() == [[0, 2, 4], [6, 8, 10]]
    assert [t.tolist() for t in tensors[1:]] == [14, [], [2, 2]]
    group._flat([], doubled)
    assert len(seen) == 1, "without tensors nothing is exchanged"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            RuntimeError("Connection closed by peer\nat line 9"),
            r"reached: Connection closed by peer\.",
        ),
        (ValueError(""), "reached: ValueError"),
    ],
)
def test_a_process_that_is_gone_is_one_sentence(error: Exception, said: str) -> None:
    with pytest.raises(UserError, match=said), _others():
        raise error
    with pytest.raises(KeyError), _others():
        raise KeyError("a fault of ours")
