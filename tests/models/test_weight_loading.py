"""Weights of a file in a model whose head, input or stem is another."""

import pytest
import torch

from cvkit import models
from cvkit.errors import ModelError
from cvkit.models.adapt import adapted


def saved(model, path):
    torch.save(model.state_dict(), path)
    return path


def test_weights_of_a_file_keep_all_but_a_head_of_another_size(tmp_path):
    source = models.create("resnet9", num_classes=5, width=4)
    path = saved(source, tmp_path / "weights.pt")
    model = models.create("resnet9", num_classes=3, in_channels=4, width=4, pretrained=path)
    assert torch.equal(model.stem[0].weight, adapted(source.stem[0].weight, 4))
    assert torch.equal(model.layer3[0][0].weight, source.layer3[0][0].weight)
    same = models.create("resnet9", num_classes=5, width=4, pretrained=str(path))
    assert torch.equal(same.head.weight, source.head.weight)


def test_a_path_may_begin_at_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    source = models.create("lenet5", num_classes=5)
    saved(source, tmp_path / "weights.pt")
    model = models.create("lenet5", num_classes=5, pretrained="~/weights.pt")
    assert torch.equal(model.classifier[1].weight, source.classifier[1].weight)


def test_weights_of_a_grey_model_go_into_one_for_colours(tmp_path):
    source = models.create("unet", num_classes=2, in_channels=1, width=2, depth=1)
    path = saved(source, tmp_path / "weights.pt")
    model = models.create("unet", num_classes=2, in_channels=3, width=2, depth=1, pretrained=path).eval()
    grey = torch.rand(1, 1, 9, 9)
    assert torch.allclose(model(grey.expand(1, 3, 9, 9)), source.eval()(grey), atol=1e-5)


def test_an_autoencoder_takes_its_own_weights(tmp_path):
    source = models.create("autoencoder_conv", in_channels=1)
    model = models.create("autoencoder_conv", in_channels=1, pretrained=saved(source, tmp_path / "weights.pt"))
    x = torch.rand(1, 1, 9, 9)
    assert torch.equal(model(x), source(x))


def test_weights_of_another_model_are_an_error_by_name(tmp_path):
    path = saved(models.create("lenet5", num_classes=5), tmp_path / "lenet.pt")
    with pytest.raises(ModelError) as caught:
        models.create("resnet9", num_classes=5, width=4, pretrained=path)
    said = str(caught.value)
    assert said.startswith(f"the weights in {path} cannot be used\n  got: RuntimeError: Error(s) in loading state_dict")
    assert said.endswith("fix: see that it was built with the same name and arguments")


def test_weights_of_other_arguments_are_an_error_even_where_the_names_fit(tmp_path):
    path = saved(models.create("resnet9", num_classes=5, width=8), tmp_path / "wide.pt")
    with pytest.raises(ModelError, match="size mismatch"):
        models.create("resnet9", num_classes=5, width=4, pretrained=path)


def test_a_torn_file_and_none_are_errors_by_name(tmp_path):
    (tmp_path / "torn.pt").write_bytes(b"PK\x03\x04")
    for name in ("torn.pt", "none.pt"):
        with pytest.raises(ModelError, match=f"the weights in .*{name} cannot be used"):
            models.create("resnet9", num_classes=5, width=4, pretrained=tmp_path / name)


def test_a_file_that_would_run_code_is_refused_and_runs_nothing(tmp_path):
    class Payload:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    torch.save({"weight": Payload()}, tmp_path / "evil.pt")
    with pytest.raises(ModelError, match=r"evil\.pt cannot be used"):
        models.create("lenet5", num_classes=5, pretrained=tmp_path / "evil.pt")
    assert not (tmp_path / "ran").exists()
