"""A kernel system too large to hold twice, solved by half of its matrix in block columns.

n points, c right-hand sides. For 16,000 points the full matrix takes 1 GB in float32, and its
factor another one; the lower half, overwritten by the factor, takes 0.5 GB.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

_BLOCK = 512


def solve_blocked(
    column: Callable[[slice, slice], Tensor], n: int, right: Tensor, block: int = _BLOCK
) -> Tensor:
    """Solve ``A z = right`` for a symmetric positive definite A that is given in pieces.

    Args:
        column: returns the rows and columns of A in these two ranges. n: its size.
        right: (n, c). block: columns at once.

    >>> a = torch.tensor([[2.0, 1.0, 0.0], [1.0, 3.0, 1.0], [0.0, 1.0, 4.0]])
    >>> z = solve_blocked(lambda rows, columns: a[rows, columns], 3, a @ torch.ones(3, 1), block=2)
    >>> z.round(decimals=4)[:, 0].tolist()
    [1.0, 1.0, 1.0]
    """
    parts = [slice(i, min(i + block, n)) for i in range(0, n, block)]
    factor: list[Tensor] = []  # of each block column: the rows from its own block down
    for j, own in enumerate(parts):
        rows = column(slice(own.start, n), own)
        for i in range(j):
            left = factor[i][own.start - parts[i].start :]  # rows from this block down
            rows.addmm_(left, left[: own.stop - own.start].T, alpha=-1)
        top, below = rows[: own.stop - own.start], rows[own.stop - own.start :]
        top.copy_(torch.linalg.cholesky(top))
        if len(below):
            below.copy_(torch.linalg.solve_triangular(top, below.T, upper=False).T)
        factor.append(rows)
    z = right.clone()
    for own, rows in zip(parts, factor):
        size = own.stop - own.start
        z[own] = torch.linalg.solve_triangular(rows[:size], z[own], upper=False)
        z[own.stop :] -= rows[size:] @ z[own]
    for own, rows in zip(reversed(parts), reversed(factor)):
        size = own.stop - own.start
        z[own] -= rows[size:].T @ z[own.stop :]
        z[own] = torch.linalg.solve_triangular(rows[:size].T, z[own], upper=True)
    return z
