"""What to do about an error of torch's, as far as its own words tell."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from torch import Tensor

from cvkit.diagnosis.trace import Trace

__all__ = ["remedy"]


def remedy(error: BaseException, trace: Trace | None, batch: Any) -> str | None:
    """Returns what to do about an error, ``None`` where its words do not tell.

    Args:
        error: What was raised.
        trace: What had come of the batch by then.
        batch: The batch.
    """
    said = str(error)
    for pattern, answer in _ANSWERS:
        found = re.search(pattern, said, re.DOTALL)
        if found is not None:
            return answer(found, trace, batch)
    return None


def _cat(found: re.Match[str], trace: Trace | None, batch: Any) -> str:
    dimension, wanted, given, which = (int(one) for one in found.groups())
    less = abs(wanted - given)
    smaller = f"number {which}" if given < wanted else "number 0"
    return (
        f"tensors of {wanted} and {given} meet in torch.cat(…, dim={dimension}): pad tensor {smaller} by {less}, "
        f"e.g. F.pad(x, (0, {less}, 0, {less})), crop the other, or feed images whose sides are divisible by every stride"
    )


def _view(found: re.Match[str], trace: Trace | None, batch: Any) -> str:
    inputs = batch[0] if isinstance(batch, list | tuple) and batch else batch
    count = len(inputs) if isinstance(inputs, Tensor) and inputs.ndim else None
    sizes = [int(one) for one in re.findall(r"-?\d+", found.group(1))]
    size = int(found.group(2))
    if sizes and count and sizes[0] != count and sizes[0] > 0 and size % count == 0:
        return (
            f"the batch holds {count} samples and this line says {sizes[0]}: write len(x) in place of the number, "
            "or x.flatten(1)"
        )
    if count and size % count == 0:
        return f"each sample has {size // count} values here: x.flatten(1) gives ({count}, {size // count})"
    return "write x.flatten(1), which keeps the samples apart"


def _inplace(found: re.Match[str], trace: Trace | None, batch: Any) -> str:
    return "write x = x + … in place of x += … (and leave out inplace=True) where the value is still needed"


def _always(text: str) -> Callable[[re.Match[str], Trace | None, Any], str]:
    return lambda found, trace, batch: text


def _matmul(found: re.Match[str], trace: Trace | None, batch: Any) -> str:
    _, width, wanted, _ = (int(one) for one in found.groups())
    return (
        f"the last size is {width}, {wanted} is expected: build that layer for {width}, or put x.flatten(1) before it"
    )


def _sizes(found: re.Match[str], trace: Trace | None, batch: Any) -> str:
    one, other, dimension = found.groups()
    return f"two tensors of {one} and {other} in dimension {dimension} meet in this line: bring them to one size there"


def _range(found: re.Match[str], trace: Trace | None, batch: Any) -> str:
    return f"a class index of {found.group(1)} needs at least {int(found.group(1)) + 1} outputs; or number the classes from 0"


_ANSWERS: list[tuple[str, Callable[[re.Match[str], Trace | None, Any], str]]] = [
    (r"except in dimension (\d+)\. Expected size (\d+) but got size (\d+) for tensor number (\d+)", _cat),
    (r"shape '\[([^\]]*)\]' is invalid for input of size (\d+)", _view),
    (r"view size is not compatible", _always("write .reshape(…) in place of .view(…)")),
    (r"modified by an inplace operation", _inplace),
    (
        r"backward through the graph a second time",
        _always("leave out loss.backward() in your step: fit calls it; return the loss"),
    ),
    (
        r"does not require grad and does not have a grad_fn",
        _always("leave out .detach(), .item() and torch.no_grad() on the way from the parameters to the loss"),
    ),
    (
        r"on the same device|is on cpu, different from|but found at least two devices",
        _always("make the tensor where x is: device=x.device, or register it with self.register_buffer(name, tensor)"),
    ),
    (r"mat1 and mat2 shapes cannot be multiplied \((\d+)x(\d+) and (\d+)x(\d+)\)", _matmul),
    (
        r"The size of tensor a \((\d+)\) must match the size of tensor b \((\d+)\) at non-singleton dimension (\d+)",
        _sizes,
    ),
    (r"Target (-?\d+) is out of bounds", _range),
    (
        r"expected scalar type Long|Expected floating point type for target|expected target.*Long",
        _always("give class indices: targets.long()"),
    ),
    (
        r"Found dtype \w+ but expected|result type \w+ can't be cast|must have the same dtype|expected .*dtype|"
        r"should be the same|expected scalar type",
        _always("bring both to one type: x.float()"),
    ),
    (
        r"Expected more than 1 value per channel",
        _always("batch norm needs more than one sample in training: a larger batch_size, or drop_last=True"),
    ),
    (
        r"all elements of (?:input|target) should be between 0 and 1",
        _always('bring them into [0, 1]: outputs by a sigmoid (or loss="bce", which takes logits), targets as 0 and 1'),
    ),
    (
        r"'(?:tuple|list)' object has no attribute|'(?:tuple|list)' and|argument .* must be Tensor, not (?:tuple|list)",
        _always("a pair is there where a tensor is expected: pick the one that is wanted, e.g. outputs[0]"),
    ),
    (
        r"'(?:\w*Output\w*|dict|OrderedDict)' object has no attribute|must be Tensor, not (?:dict|OrderedDict)",
        _always("a dict is there where a tensor is expected: pick one, e.g. outputs['out']"),
    ),
]
"""Words of torch's and what to do, the first that fits."""
