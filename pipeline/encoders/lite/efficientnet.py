"""EfficientNet-Lite0 as its published weights need it.

Table 1 of EfficientNet (Tan and Le, ICML 2019) in the Lite variant: no squeeze-and-excitation,
ReLU6, TensorFlow's padding. timm builds the same network, and a test holds the two equal; but
importing timm imports torchvision and torch's compiler: most of the seconds of a cold start.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn

# kernel, stride of the first block, expansion, width, blocks
_STAGES = (
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)
_STEM = 32
WIDTH = 1280
CLASSES = 1000


class SameConv(nn.Conv2d):
    """A convolution with stride two that pads as TensorFlow does: the odd pixel after the rest."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Map (b, i, h, w) to (b, o, ⌈h/2⌉, ⌈w/2⌉)."""
        kernel, stride = self.kernel_size[0], self.stride[0]
        pads = [max((-(-side // stride) - 1) * stride + kernel - side, 0)
                for side in (input.shape[-1], input.shape[-2])]  # fmt: skip
        around = [part for pad in pads for part in (pad // 2, pad - pad // 2)]
        return F.conv2d(F.pad(input, around), self.weight, self.bias, stride, 0, 1, self.groups)


def _layer(
    inside: int, outside: int, kernel: int = 1, stride: int = 1, groups: int = 1, act: bool = True
) -> nn.Sequential:
    kind = SameConv if stride > 1 else nn.Conv2d
    return nn.Sequential(
        kind(inside, outside, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outside, eps=1e-3),
        nn.ReLU6(inplace=True) if act else nn.Identity(),
    )


class Block(nn.Module):
    """An inverted residual: widen, convolve each channel alone, narrow."""

    def __init__(self, inside: int, outside: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = inside * expansion
        self.layers = nn.Sequential(
            *([_layer(inside, wide)] if expansion > 1 else []),
            _layer(wide, wide, kernel, stride, groups=wide),
            _layer(wide, outside, act=False),
        )
        self.residual = stride == 1 and inside == outside

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (b, inside, h, w) to (b, outside, h / stride, w / stride)."""
        return x + self.layers(x) if self.residual else self.layers(x)


class EfficientNetLite0(nn.Module):
    """The network; its tensors stand in the order of the published file."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = _layer(3, _STEM, 3, 2)
        blocks, inside = [], _STEM
        for kernel, stride, expansion, width, count in _STAGES:
            for number in range(count):
                first = number == 0
                blocks.append(Block(inside, width, kernel, stride if first else 1, expansion))
                inside = width
        self.blocks = nn.Sequential(*blocks)
        self.top = _layer(inside, WIDTH)
        self.classifier = nn.Linear(WIDTH, CLASSES)

    def forward_features(self, pixels: torch.Tensor) -> torch.Tensor:
        """Map (b, 3, h, w) to the map before pooling, (b, 1280, h / 32, w / 32)."""
        return self.top(self.blocks(self.stem(pixels)))


@torch.no_grad()
def fold_batch_norms(model: nn.Module) -> None:
    """Merge every batch norm into the convolution right before it, in place; exact at inference."""
    for module in list(model.modules()):
        for (_, conv), (name, norm) in pairwise(list(module.named_children())):
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                mean, variance = norm.running_mean, norm.running_var
                assert mean is not None
                assert variance is not None
                scale = norm.weight / torch.sqrt(variance + norm.eps)
                conv.weight.mul_(scale[:, None, None, None])
                conv.bias = nn.Parameter(norm.bias - mean * scale)
                setattr(module, name, nn.Identity())
