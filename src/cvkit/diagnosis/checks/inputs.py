"""The inputs as they reach the model: their scale, whether they are images at all, and train against val."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from cvkit.diagnosis.probe import Probe, Side
from cvkit.diagnosis.samples import drawn
from cvkit.diagnosis.shapes import number, some
from cvkit.diagnosis.table import Seen, check

NORMS = (_BatchNorm, nn.LayerNorm, nn.GroupNorm, nn.modules.instancenorm._InstanceNorm)
"""Layers that bring their input to one scale, whatever it is."""


def _images(side: Side) -> Tensor | None:
    """Returns the inputs where they are images: floating-point ``(N, C, H, W)`` or ``(N, H, W)``, finite."""
    inputs = side.inputs
    if not isinstance(inputs, Tensor) or not inputs.is_floating_point() or inputs.ndim not in (3, 4) or not len(inputs):
        return None
    if min(inputs.shape[-2:]) < 4 or (inputs.ndim == 4 and inputs.shape[1] > 4):
        return None
    found = inputs.detach().float()
    return found if bool(torch.isfinite(found).all()) else None


def _range(tensor: Tensor) -> tuple[float, float]:
    low, high = torch.aminmax(tensor)
    return float(low), float(high)


def _told(tensor: Tensor) -> str:
    low, high = _range(tensor)
    return f"values from {number(low)} to {number(high)}, on average {number(float(tensor.mean()))}"


def _reaches_a_layer(side: Side, low: float, high: float) -> bool:
    """Whether the first layer with weights gets this range as it is: the model has not scaled its input itself."""
    for call in side.trace.layers:
        if any(True for _ in call.module.parameters(recurse=False)) or isinstance(call.module, NORMS):
            given = call.args[0] if call.args else None
            if not isinstance(given, Tensor) or isinstance(call.module, NORMS) or not given.numel():
                return False
            least, most = _range(given.float())
            wide = max(abs(low), abs(high))
            return abs(max(abs(least), abs(most)) - wide) <= 0.05 * wide
    return False


@check("CV211", "warning", "Inputs divided by 255 twice", needs=["outputs"], each=True)
def divided_twice(probe: Probe, side: Side) -> Iterator[Seen]:
    """ToTensor has divided already."""
    images = _images(side)
    if images is None:
        return
    low, high = _range(images)
    if low < 0 or not 0.0005 < high <= 1.02 / 255 or not _reaches_a_layer(side, low, high):
        return
    yield Seen(
        f"the inputs of {side.name} are next to zero: it looks as if they were divided by 255 twice",
        got=_told(images),
        expected="values from 0 to 1, or normalised ones from about -2 to 2",
        fix="divide once: ToTensor() and the transform presets have divided by 255 already",
    )


@check("CV212", "warning", "Inputs not divided by 255", needs=["outputs"], each=True)
def not_divided(probe: Probe, side: Side) -> Iterator[Seen]:
    """Images from 0 to 255, also after ImageNet's mean and standard deviation."""
    images = _images(side)
    if images is None:
        return
    low, high = _range(images)
    raw = low >= 0 and 60 < high <= 256 and float(images.mean()) > 8
    normalised = not raw and low >= -6 and high > 100 and float(images.mean()) > 16
    if not (raw or normalised) or not _reaches_a_layer(side, low, high):
        return
    yield Seen(
        f"the inputs of {side.name} are not divided by 255"
        if raw
        else f"the inputs of {side.name} were normalised by the mean and std of images from 0 to 1, and they go from 0 to 255",
        got=_told(images),
        expected="values from 0 to 1, or normalised ones from about -2 to 2",
        fix="images.float() / 255"
        + ("" if raw else " before Normalize(mean, std); ToTensor() does it for integer images"),
    )


@check("CV213", "warning", "Constant images", needs=["batch"], each=True)
def constant(probe: Probe, side: Side) -> Iterator[Seen]:
    """Images that failed to load, or integers divided by integers."""
    images = _images(side)
    if images is None:
        return
    flat = images.flatten(-2)
    empty = (flat.amax(-1) == flat.amin(-1)).reshape(len(images), -1).all(1)
    colours = flat.amax(-1).reshape(len(images), -1)[empty]
    if len(colours) and bool((colours.amax(0) != colours.amin(0)).any()):
        return  # plain colours that differ: drawn so on purpose
    count, total = int(empty.sum()), len(images)
    whole = count == total and (total > 1 or flat.shape[-1] >= 64)
    some_of = not probe.own_step and probe.loss.classification
    flat_targets = isinstance(side.targets, Tensor) and side.targets.ndim == 1
    if whole or (some_of and flat_targets and count >= 2 and count >= 0.2 * total):
        where = empty.nonzero().flatten().tolist()
        yield Seen(
            f"{count} of the {total} images of the first batch of {side.name} are of one value each: there is nothing on them",
            got=f"{_told(images[empty])}; in the batch number {some(str(one) for one in where)}",
            expected="images that differ from pixel to pixel",
            fix="look at how they are read: cv2.imread gives None for a path that is not there; images // 255 is 0",
        )
    elif _is_floored(flat):
        yield Seen(
            f"nearly every pixel of {side.name} has the lowest value: it looks as if integers were divided by //",
            got=f"{number(100 * float((flat == flat.amin()).float().mean()))} % of the pixels are {number(float(flat.amin()))}",
            expected="images that differ from pixel to pixel",
            fix="divide by / instead of //: images / 255",
        )


def _is_floored(flat: Tensor) -> bool:
    """Whether there are two values in each channel, and the higher one, white, is next to absent."""
    channels = flat.transpose(0, 1).reshape(flat.shape[1], -1) if flat.ndim == 3 else flat.reshape(1, -1)
    if channels.shape[1] < 256:
        return False
    low, high = channels.amin(1, keepdim=True), channels.amax(1, keepdim=True)
    two = ((channels == low) | (channels == high)).all()
    return bool(two) and float((channels == low).float().mean()) > 0.985 and bool((high - low >= 1).any())


@check("CV214", "warning", "The same image again and again", needs=["batch"], each=True)
def repeated(probe: Probe, side: Side) -> Iterator[Seen]:
    """A ``__getitem__`` that ignores its index, or an export that wrote one image many times."""
    images, targets = _images(side), side.targets
    if images is None or len(images) < 3 or not isinstance(targets, Tensor):
        return
    groups = _groups(images) if targets.ndim and len(targets) == len(images) else []
    if not groups:
        return
    clash = [one for one in groups if any(not torch.equal(targets[one[0]], targets[other]) for other in one[1:])]
    labels = isinstance(targets, Tensor) and targets.ndim == 1
    involved, total = sum(map(len, clash)), len(images)
    if labels and clash and (involved >= 3 or involved == total) and involved >= 0.25 * total:
        first = clash[0]
        alike = len(first) == total
        yield Seen(
            f"all {total} images of the first batch of {side.name} are the same, with different labels"
            if alike
            else f"the first batch of {side.name} has the same image with different labels, in {involved} of {total} samples",
            got=f"samples {some(map(str, first))} of the batch are equal, with the labels "
            f"{some(str(targets[one].item()) for one in first)}",
            expected="a different image for each sample",
            fix="use the index in __getitem__: return self.images[index], self.targets[index]"
            if alike
            else "look at how the images were written: one image was saved for several samples",
        )
        return
    twice = sum(map(len, groups))
    if (
        drawn(side.loader).kind not in ("sequential", "random")
        or isinstance(side.loader, list | tuple)
        or probe.own_step
    ):
        return
    if twice >= max(4, 0.5 * total) and len(groups) > 1 and side.training:
        yield Seen(
            f"{twice} of the {total} images of the first batch of {side.name} come more than once",
            got=f"e.g. samples {some(map(str, groups[0]))} of the batch are equal",
            expected="a different image for each sample",
            fix="look at the list of files, and at how __getitem__ uses its index; several copies count as one",
        )


def _groups(images: Tensor) -> list[list[int]]:
    """Returns the places of images that are equal, of those that are not constant."""
    flat = images.flatten(1)
    sums = flat.double().sum(1).tolist()
    varied = (flat.amax(1) > flat.amin(1)).tolist()
    found: dict[float, list[int]] = {}
    for place, (value, is_varied) in enumerate(zip(sums, varied, strict=True)):
        if is_varied:
            found.setdefault(value, []).append(place)
    kept = [[one for one in group if torch.equal(flat[one], flat[group[0]])] for group in found.values()]
    return [group for group in kept if len(group) > 1]


@check("CV215", "warning", "Validation inputs on another scale", needs=["both_datasets", "outputs"], each=True)
def other_scale(probe: Probe, side: Side) -> Iterator[Seen]:
    """Normalised in training and not in validation, or divided on one side only."""
    if side.training:
        return
    pair = [_images(one) for one in (probe.train, side)]
    train, val = pair
    if train is None or val is None:
        yield from _other_features(probe.train.inputs, side.inputs)
        return
    (low, high), (least, most) = _range(train), _range(val)
    unnormalised = low < -0.3 and least >= 0 and most <= 1.0001 < high + 0.6 and val.numel() >= 192
    turned = least < -0.3 and low >= 0 and high <= 1.0001 < most + 0.6 and train.numel() >= 192
    ratio = _apart(train, val)
    if not (unnormalised or turned) and ratio < 8:
        return
    yield Seen(
        "the inputs of val are on another scale than those of train",
        got=f"train: {_told(train)}; val: {_told(val)}",
        expected="the same normalisation on both sides",
        fix="give the transform of val the Normalize(mean, std) that train has"
        if unnormalised
        else "give the transform of train the Normalize(mean, std) that val has"
        if turned
        else "divide by 255 and normalise on both sides, or on none",
    )


def _apart(train: Tensor, val: Tensor) -> float:
    """Returns by how much both the largest value and the deviation of one side exceed those of the other."""
    largest = [float(one.abs().max()) for one in (train, val)]
    spread = [float(one.std()) for one in (train, val)]
    if min(*largest, *spread) <= 0:
        return 1.0
    ups, downs = (largest[0] / largest[1], spread[0] / spread[1]), (largest[1] / largest[0], spread[1] / spread[0])
    return max(min(ups), min(downs))


def _other_features(train: Any, val: Any) -> Iterator[Seen]:
    """Does the same for features: a scaler that validation forgot."""
    for one in (train, val):
        if not isinstance(one, Tensor) or not one.is_floating_point() or one.ndim != 2 or len(one) < 8:
            return
        if not bool(torch.isfinite(one).all()):
            return
    if train.shape[1] != val.shape[1] or _apart(train.float(), val.float()) < 20:
        return
    yield Seen(
        "the inputs of val are on another scale than those of train",
        got=f"train: {_told(train.float())}; val: {_told(val.float())}",
        expected="the same scaling on both sides",
        fix="scale val by the mean and the standard deviation of train",
    )


@check("CV216", "warning", "Validation images of another size", needs=["outputs"], each=True)
def other_size(probe: Probe, side: Side) -> Iterator[Seen]:
    """A classifier that pools takes any size, and has learned things of one."""
    train, val, outputs = probe.train.inputs, side.inputs, side.trace.outputs
    if side.training or probe.own_step or not probe.loss.classification:
        return
    if not all(isinstance(one, Tensor) and one.ndim == 4 and one.shape[1] <= 4 for one in (train, val)):
        return
    if not isinstance(outputs, Tensor) or outputs.ndim != 2:
        return
    (height, width), (high, wide) = train.shape[2:], val.shape[2:]
    ratio = ((high * wide) / (height * width)) ** 0.5
    if 0.8 < ratio < 1.8:
        return
    yield Seen(
        "the images of val are of another size than those of train",
        got=f"train {height} x {width}, val {high} x {wide}",
        expected="the size of training, or up to half as much again",
        fix=f"resize the images of val to {height} x {width}",
    )
