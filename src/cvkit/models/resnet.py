"""Residual networks for small images: no stem that pools, no size typed in."""

from __future__ import annotations

from collections import OrderedDict

import torch.nn.functional as F
from torch import Tensor, nn

from cvkit.errors import ArgumentError
from cvkit.models.blocks import check_size
from cvkit.models.registry import register

__all__ = ["resnet", "resnet9"]


class _Block(nn.Module):
    """Two 3×3 convolutions beside a shortcut without weights: ``(N, C, H, W)`` to ``(N, C', H / stride, W / stride)``.

    The shortcut takes every ``stride``-th pixel and pads the new maps with zeros (option A of the paper).
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.stride = stride
        self.new_maps = out_channels - in_channels

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        shortcut = x[:, :, :: self.stride, :: self.stride]
        if self.new_maps:
            before = self.new_maps // 2
            shortcut = F.pad(shortcut, (0, 0, 0, 0, before, self.new_maps - before))
        return F.relu(out + shortcut)


@register("resnet")
def resnet(*, num_classes: int, in_channels: int = 3, depth: int = 20, width: int = 16) -> nn.Module:
    """A ResNet for small images: ``(N, in_channels, H, W)`` of any size to ``(N, num_classes)``.

    A 3×3 convolution, three stages of ``(depth - 2) / 6`` blocks with ``width``, twice and four times as many maps, the second
    and third on half the height and width of the one before, global average pooling, one linear layer. For 32×32 the stages
    are 32×32, 16×16 and 8×8. With three channels and ten classes ResNet-20 has 0.27 million parameters, -56 0.85 and -110 1.7.

    Source: He et al., Deep Residual Learning for Image Recognition, 2015, section 4.2 (shortcuts of option A); the
    initialisation is He et al., Delving Deep into Rectifiers, 2015.

    Args:
        num_classes: Outputs.
        in_channels: Channels of the images.
        depth: Layers with weights: ``6 n + 2``, e.g. 20, 32, 44, 56 or 110.
        width: Maps of the first stage; 16 in the paper. Larger makes a wide residual network (Zagoruyko and Komodakis, 2016).

    Raises:
        ArgumentError: A depth that three stages cannot have, or a width that is none.
    """
    blocks, rest = divmod(check_size("resnet", "depth", depth) - 2, 6)
    if rest or blocks < 1:
        raise ArgumentError(
            "resnet: depth cannot be used",
            got=depth,
            expected="6 n + 2: 8, 14, 20, 26, 32, 38, 44, 50, 56, …, 110",
            fix=f"pass depth={6 * max(blocks, 1) + 2}",
        )
    channels = check_size("resnet", "width", width)
    layers: OrderedDict[str, nn.Module] = OrderedDict(stem=_conv_bn(in_channels, channels))
    for stage in range(3):
        wider = width * 2**stage
        layers[f"layer{stage + 1}"] = nn.Sequential(
            _Block(channels, wider, 2 if stage else 1), *(_Block(wider, wider, 1) for _ in range(blocks - 1))
        )
        channels = wider
    layers |= {"pool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten(), "head": nn.Linear(channels, num_classes)}
    model = nn.Sequential(layers)
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return model


class _Residual(nn.Module):
    """Two convolutions beside the identity: ``(N, C, H, W)`` to the same."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = _conv_bn(channels, channels)
        self.second = _conv_bn(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.second(self.first(x))
        return out


def _conv_bn(in_channels: int, out_channels: int, *, pool: bool = False) -> nn.Sequential:
    layers: list[nn.Module] = [
        nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    ]
    return nn.Sequential(*layers, *([nn.MaxPool2d(2)] if pool else []))


@register("resnet9")
def resnet9(*, num_classes: int, in_channels: int = 3, width: int = 64) -> nn.Module:
    """A small residual network for small images: ``(N, in_channels, H, W)``, at least 8×8, to ``(N, num_classes)``.

    Source: David Page, How to Train Your ResNet, 2018 (DAWNBench); its 4×4 max pooling at the end is global here, so that any
    size goes in. For 32×32: 64 maps of 32×32, 128 of 16×16, 256 of 8×8, 512 of 4×4.

    Args:
        num_classes: Outputs.
        in_channels: Channels of the images.
        width: Maps of the first convolution; 64, and twice, four and eight times as many further on.

    Raises:
        ArgumentError: A width that is none.
    """
    check_size("resnet9", "width", width)
    return nn.Sequential(
        OrderedDict(
            stem=_conv_bn(in_channels, width),
            layer1=nn.Sequential(_conv_bn(width, 2 * width, pool=True), _Residual(2 * width)),
            layer2=_conv_bn(2 * width, 4 * width, pool=True),
            layer3=nn.Sequential(_conv_bn(4 * width, 8 * width, pool=True), _Residual(8 * width)),
            pool=nn.AdaptiveMaxPool2d(1),
            flatten=nn.Flatten(),
            head=nn.Linear(8 * width, num_classes),
        )
    )
