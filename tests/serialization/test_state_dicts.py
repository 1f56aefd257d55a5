"""Every kind of tensor either comes back from a checkpoint or is refused before it is written."""

import pytest
import torch
from torchvision import tv_tensors

from cvkit.errors import CheckpointError
from cvkit.training import load_checkpoint, save_checkpoint


class Named(torch.Tensor):
    """A subclass without values of its own kind."""


def _remarked() -> torch.Tensor:
    tensor = torch.arange(3.0)
    tensor.remark = print  # nothing that a checkpoint may hold
    return tensor


KEPT = {
    "a subclass": lambda: torch.arange(3.0).as_subclass(Named),
    "an image of torchvision's": lambda: tv_tensors.Image(torch.arange(12.0).reshape(3, 2, 2)),
    "a tensor with an attribute": _remarked,
    "a parameter": lambda: torch.nn.Parameter(torch.arange(3.0)),
    "a buffer": lambda: torch.nn.Buffer(torch.arange(3.0)),
    "a conjugated view": lambda: torch.tensor([1 + 2j, 3 - 1j]).conj(),
    "a negated view": lambda: torch.tensor([1 + 2j, 3 - 1j]).conj().imag,
    "an expanded one": lambda: torch.ones(1).expand(4),
    "a slice": lambda: torch.arange(100.0)[3:9:2],
    "a transposed one": lambda: torch.arange(6.0).reshape(2, 3).T,
    "channels last": lambda: torch.arange(24.0).reshape(1, 2, 3, 4).to(memory_format=torch.channels_last),
    "sparse": lambda: torch.eye(3).to_sparse(),
    "sparse rows": lambda: torch.eye(3).to_sparse_csr(),
    "16 bits unsigned": lambda: torch.tensor([65535, 0], dtype=torch.uint16),
    "64 bits unsigned": lambda: torch.tensor([2**63, 0], dtype=torch.uint64),
    "8-bit floats": lambda: torch.tensor([1.5, -2.0]).to(torch.float8_e4m3fn),
    "no element": lambda: torch.empty(0, 3),
}


@pytest.mark.filterwarnings("ignore:Validating sparse:UserWarning", "ignore:Sparse:UserWarning")
@pytest.mark.parametrize("kind", KEPT)
def test_a_tensor_of_any_kind_comes_back_as_a_plain_one(tmp_path, kind):
    given = KEPT[kind]()
    back = load_checkpoint(save_checkpoint(tmp_path / "a.pt", {"t": given}))["t"]
    assert type(back) is torch.Tensor
    assert (back.dtype, back.shape, back.layout) == (given.dtype, given.shape, given.layout)
    assert not back.requires_grad
    plain = given.detach().as_subclass(torch.Tensor) if type(given.detach()) is not torch.Tensor else given.detach()
    if plain.layout == torch.strided:
        assert back.stride() == plain.stride()
    dense = [
        t.to_dense().float() if t.dtype in (torch.float8_e4m3fn, torch.uint16) else t.to_dense() for t in (back, plain)
    ]
    assert dense[0].tolist() == dense[1].tolist()


REFUSED = {
    "a lazy parameter": (lambda: torch.nn.LazyLinear(2).weight, "no values: torch.nn.parameter.UninitializedParameter"),
    "the meta device": (lambda: torch.ones(2, device="meta"), "no values: torch.Tensor"),
    "nested": (
        lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]),
        "values in other tensors: torch.Tensor",
    ),
    "jagged": (
        lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)], layout=torch.jagged),
        "values in other tensors: torch.nested._internal.nested_tensor.NestedTensor",
    ),
}


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")
@pytest.mark.filterwarnings("ignore:Lazy modules:UserWarning")
@pytest.mark.parametrize("kind", REFUSED)
def test_a_tensor_that_could_be_written_but_not_be_read_back_is_refused_by_its_key(tmp_path, kind):
    make, got = REFUSED[kind]
    with pytest.raises(CheckpointError) as caught:
        save_checkpoint(tmp_path / "a.pt", {"model": {"w": make()}})
    fix = "run one batch through a lazy model first" if got.startswith("no") else "take it apart into plain tensors"
    assert str(caught.value) == (
        "content['model']['w'] cannot go into a checkpoint\n"
        f"  got: {got}\n"
        "  expected: tensors that hold their own values\n"
        f"  fix: {fix}"
    )
    assert list(tmp_path.iterdir()) == []
