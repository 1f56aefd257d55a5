"""``predict(model, data)``: the outputs of any module over any loader."""

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import cvkit
from cvkit.errors import ArgumentError, CvkitWarning, DataError, PreflightError

INPUTS = torch.randn(10, 4, generator=torch.Generator().manual_seed(0))
MODEL = nn.Sequential(nn.Linear(4, 3), nn.Dropout(0.5), nn.BatchNorm1d(3))


def wanted(inputs=INPUTS):
    with torch.no_grad():
        return nn.Sequential(*MODEL).eval()(inputs)


FORMS = {
    "a tensor": lambda: INPUTS,
    "batches of inputs": lambda: list(INPUTS.split(4)),
    "batches of pairs": lambda: [(one, torch.zeros(len(one))) for one in INPUTS.split(4)],
    "a DataLoader": lambda: DataLoader(TensorDataset(INPUTS, torch.zeros(10)), 3),
    "a loader": lambda: cvkit.data.Loader(cvkit.data.ArrayDataset(INPUTS, torch.zeros(10)), 4),
}


@pytest.mark.parametrize("form", FORMS)
def test_outputs_come_in_order_from_every_kind_of_data(form):
    found = cvkit.predict(MODEL, FORMS[form](), device="cpu")
    assert torch.allclose(found, wanted(), atol=1e-6)
    assert not found.requires_grad


def test_modes_are_as_before():
    MODEL.train()
    MODEL[1].eval()
    cvkit.predict(MODEL, INPUTS, device="cpu")
    assert [module.training for module in MODEL.modules()] == [True, True, False, True]
    MODEL.eval()
    cvkit.predict(MODEL, INPUTS, device="cpu")
    assert not any(module.training for module in MODEL.modules())


def test_modes_are_as_before_after_an_error_too():
    MODEL.train()
    with pytest.raises(PreflightError, match="CV801: the forward fails in layer"):
        cvkit.predict(MODEL, torch.zeros(2, 9), device="cpu")
    assert MODEL.training


def test_a_loader_does_not_move_on():
    loader = cvkit.data.Loader(cvkit.data.ArrayDataset(INPUTS, torch.zeros(10)), 4, shuffle=True)
    first = cvkit.predict(MODEL, loader, device="cpu")
    assert loader.state_dict() == {"seed": 0, "epoch": 0, "batch": 0}
    assert torch.equal(cvkit.predict(MODEL, loader, device="cpu"), first)


def test_samples_without_a_row_are_told(photos, run, tmp_path):
    import shutil

    shutil.copytree(photos / "val", tmp_path / "val")
    (tmp_path / "val" / "a" / "bad.png").write_bytes(b"?")
    dataset = cvkit.data.FolderDataset(tmp_path / "val", on_error="skip")
    loader = cvkit.data.Loader(dataset, 4, transform=cvkit.transforms.small_image_eval(32))
    with pytest.warns(
        CvkitWarning, match="1 samples have no row in the outputs because they cannot be read, e.g. sample 0"
    ):
        assert len(cvkit.predict(run.model, loader, device="cpu")) == 15


class Liar:
    """Says that it has batches, and gives none."""

    def __len__(self):
        return 2

    def __iter__(self):
        return iter(())


def test_data_that_gives_nothing_is_refused():
    with pytest.raises(DataError) as caught:
        cvkit.predict(MODEL, Liar(), device="cpu")
    assert str(caught.value) == (
        "data gave no batch\n"
        "  got: an iteration of Liar that ends at once\n"
        "  expected: 2 batches, as its length says\n"
        "  fix: it is probably used up, or none of its samples can be read"
    )


@pytest.mark.parametrize(
    ("model", "data", "message"),
    [
        (nn.Linear, INPUTS, "model cannot be used\n  got: the class Linear"),
        ("best.pt", INPUTS, "model cannot be used\n  got: str"),
        (MODEL, 3, "data cannot be iterated"),
        (MODEL, [], "data has no batches"),
        (MODEL, iter([INPUTS]), "data is an iterator"),
    ],
)
def test_what_cannot_be_used_is_refused(model, data, message):
    with pytest.raises(ArgumentError, match=f"^{message}"):
        cvkit.predict(model, data, device="cpu")


def test_outputs_that_are_no_tensor_are_refused(fixed):
    model = fixed(lambda inputs: (inputs, inputs)).model
    with pytest.raises(ArgumentError) as caught:
        cvkit.predict(model, INPUTS, device="cpu")
    assert str(caught.value) == (
        "the outputs of Fixed cannot be put together\n"
        "  got: tuple from a batch\n"
        "  expected: a tensor (N, …)\n"
        "  fix: wrap the model in a module that returns the one that is wanted"
    )
