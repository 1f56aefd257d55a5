"""``Watch``: a layer that dies during the run is named, once."""

import pytest
import torch
from torch import nn

import cvkit
from cvkit.callbacks import Watch
from cvkit.errors import ArgumentError, CvkitWarning


class Kill(cvkit.Callback):
    """Turns a layer off after some updates."""

    def __init__(self, at):
        self.at = at

    def on_batch_end(self, state):
        if state.step == self.at:
            state.model[0].bias.data.fill_(-100.0)


def _run(*callbacks, epochs=4, **options):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    train = [(torch.randn(8, 4), torch.arange(8) % 2) for _ in range(6)]
    options = {"epochs": epochs, "progress": False, "device": "cpu", **options}
    return cvkit.fit(model, train, callbacks=callbacks, **options)


def test_a_layer_that_dies_is_named_once():
    with pytest.warns(CvkitWarning) as found:
        _run(Kill(at=7), Watch(every_steps=1))
    (said,) = [str(one.message) for one in found]
    assert said == (
        "CV904: no gradient has reached 0.weight, 0.bias, 2.weight in epoch 3: it was exactly 0\n"
        "  got: a gradient of 0 for 3 of 4 parameters in all 6 updates looked at\n"
        "  expected: a gradient for every parameter that is trained\n"
        "  fix: a lower lr or clip_norm=1.0 if it was there before; else look for a ReLU that is always off"
    )


def test_nothing_is_said_of_layers_that_live():
    _run(Watch(every_steps=1))  # a warning would be an error here


def test_nothing_is_said_after_too_few_looks():
    _run(Kill(at=7), Watch(every_steps=2))


def test_it_changes_nothing():
    one, other = _run(Watch(every_steps=1)), _run()
    assert one.history == other.history
    for name, value in one.model.state_dict().items():
        assert torch.equal(value, other.model.state_dict()[name])


@pytest.mark.parametrize("name", ["every_steps", "least"])
def test_numbers_below_1_are_refused(name):
    with pytest.raises(ArgumentError, match=name):
        Watch(**{name: 0})
