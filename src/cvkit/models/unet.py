"""U-Net: a class for each pixel."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from cvkit.errors import ArgumentError
from cvkit.models.blocks import check_size
from cvkit.models.registry import register

__all__ = ["UNet", "unet"]

_DEEPEST = 16  # of an image of 65,536 pixels a side, one is left


class UNet(nn.Module):
    """A U-Net: ``(N, in_channels, H, W)`` of any size to ``(N, num_classes, H, W)``.

    On level ``i``, from 0, there are ``width * 2 ** i`` maps on ``2 ** i`` times smaller images, halved upwards: an odd row
    or column is kept on the way down, and what is too much is cut off on the way up.

    Args:
        num_classes: Maps out.
        in_channels: Channels of the images.
        width: Maps on the finest level.
        depth: How often height and width are halved.
        dropout: Probability of dropping one of the coarsest level's values.
    """

    def __init__(self, num_classes: int, in_channels: int, width: int, depth: int, dropout: float) -> None:
        super().__init__()
        widths = [width * 2**level for level in range(depth + 1)]
        self.down = nn.ModuleList(map(_double, [in_channels, *widths], widths))
        self.pool = nn.MaxPool2d(2, ceil_mode=True)
        self.dropout = nn.Dropout(dropout)
        upwards = list(reversed(widths))
        self.up = nn.ModuleList(nn.ConvTranspose2d(coarse, fine, 2, stride=2) for coarse, fine in pairwise(upwards))
        self.merge = nn.ModuleList(_double(2 * fine, fine) for fine in upwards[1:])
        self.head = nn.Conv2d(width, num_classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Returns the logits of each pixel."""
        *levels, bottom = self.down
        passed: list[Tensor] = []
        for level in levels:
            passed.append(level(x))
            x = self.pool(passed[-1])
        x = self.dropout(bottom(x))
        for up, merge, fine in zip(self.up, self.merge, reversed(passed), strict=True):
            x = up(x)[..., : fine.shape[-2], : fine.shape[-1]]
            x = merge(torch.cat([fine, x], 1))
        out: Tensor = self.head(x)
        return out


def _double(in_channels: int, out_channels: int) -> nn.Sequential:
    """Two 3×3 convolutions with batch norm and ReLU: ``(N, in_channels, H, W)`` to ``(N, out_channels, H, W)``."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
        nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )


@register("unet")
def unet(*, num_classes: int, in_channels: int = 3, width: int = 64, depth: int = 4, dropout: float = 0.0) -> nn.Module:
    """A U-Net: ``(N, in_channels, H, W)`` of any size, odd ones too, to the logits of each pixel ``(N, num_classes, H, W)``.

    Source: Ronneberger, Fischer and Brox, U-Net: Convolutional Networks for Biomedical Image Segmentation, 2015; its
    convolutions are padded here, so that the result is as large as the image, and followed by batch norm. With
    ``width=64`` and ``depth=4``, the paper's, it has 31 million parameters.

    Args:
        num_classes: Maps out; 1 with ``loss="bce"`` or ``"dice"``, or one a class, the background being one of them.
        in_channels: Channels of the images.
        width: Maps on the finest level; twice as many on each coarser one.
        depth: How often height and width are halved.
        dropout: Probability of dropping one of the coarsest level's values.

    Raises:
        ArgumentError: A width or depth that is none, or a depth beyond 16.
    """
    if check_size("unet", "depth", depth) > _DEEPEST:
        raise ArgumentError(
            "unet: depth cannot be used",
            got=depth,
            expected=f"an integer from 1 to {_DEEPEST}",
            fix="leave it out for the paper's 4",
        )
    return UNet(num_classes, in_channels, check_size("unet", "width", width), depth, dropout)
