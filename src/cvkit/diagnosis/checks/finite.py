"""NaN and infinity among the inputs that are in memory, beyond the first batch."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from cvkit.diagnosis.probe import Probe, Side
from cvkit.diagnosis.samples import getter, parts_of_side
from cvkit.diagnosis.shapes import some
from cvkit.diagnosis.table import Seen, check

BYTES = 128 * 2**20
"""Tensors up to this size are looked through."""


@check("CV218", "warning", "NaN or infinity further on in the inputs", needs=["evaluation"], cost="forward", each=True)
def not_finite_later(probe: Probe, side: Side) -> Iterator[Seen]:
    """One sample of them makes the weights NaN when its batch comes."""
    if probe.own_step or not isinstance(side.inputs, Tensor):
        return
    for dataset, places in parts_of_side(side):
        if type(dataset) is not TensorDataset or getter(dataset) != "torch":
            continue
        inputs = dataset.tensors[0]
        if not inputs.is_floating_point() or inputs.ndim < 2 or inputs.nbytes > BYTES:
            continue
        bad = (~torch.isfinite(inputs.flatten(1).sum(1))).nonzero().flatten().cpu()
        bad = bad[torch.isin(bad, torch.as_tensor(places))]
        bad = bad[(~torch.isfinite(inputs[bad]).flatten(1).all(1)).cpu()] if len(bad) else bad
        if not len(bad):
            continue
        outputs = probe.evaluate(inputs[bad[:2]].to(side.inputs.device, side.inputs.dtype))
        if not isinstance(outputs, Tensor) or bool(torch.isfinite(outputs).all()):
            continue  # the model knows what to do with them
        yield Seen(
            f"{len(bad)} samples of {side.name} hold NaN or infinity, and the model's outputs for them are not finite",
            got=f"samples {some(str(one) for one in bad.tolist())} of {len(dataset)}, in the first tensor of the dataset",
            expected="finite inputs",
            fix="look at how these samples are made: a logarithm or a division of 0, a missing value; or leave them out",
        )
        return
