"""Each call of fit gives its model epochs that the loader has not served before; a resumed one those of its run."""

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

import cvkit
from cvkit.callbacks import Checkpoint
from cvkit.data import ArrayDataset, Loader
from cvkit.transforms import small_image_train

EPOCHS = 2


def loader(seed=0):
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (24, 3, 8, 8), dtype=torch.uint8, generator=generator)
    data = ArrayDataset(images, torch.arange(24) % 3, classes=["a", "b", "c"])
    return Loader(data, 8, transform=small_image_train(8), shuffle=True, seed=seed)


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 3))


class Seen(cvkit.Callback):
    """Keeps the inputs of every batch, and stops where it is asked to."""

    def __init__(self, stop_at=None):
        self.batches, self.stop_at = [], stop_at

    def on_batch_end(self, state):
        self.batches.append(state.batch[0].clone())
        if state.step == self.stop_at:
            state.request_stop("asked")


def fit(train, epochs=1, callbacks=(), model=None, **options):
    seen = next((one for one in callbacks if isinstance(one, Seen)), None) or Seen()
    rest = [one for one in callbacks if one is not seen]
    result = cvkit.fit(
        model or network(),
        train,
        epochs=epochs,
        callbacks=[seen, *rest],
        progress=False,
        optimizer="momentum",
        **options,
    )
    return seen.batches, result


def equal(one, other):
    return len(one) == len(other) and all(map(torch.equal, one, other))


def test_three_calls_of_one_epoch_see_what_one_call_of_three_sees():
    whole, train = fit(loader(), epochs=3)[0], loader()
    parts = [fit(train)[0] for _ in range(3)]
    assert equal(parts[0] + parts[1] + parts[2], whole)
    assert not equal(parts[0], parts[1])


def test_set_epoch_repeats_them():
    train = loader()
    first = fit(train)[0]
    train.set_epoch(0)
    assert equal(fit(train)[0], first)


@pytest.mark.parametrize("stopped", [2, 3, 4])
def test_an_epoch_that_was_begun_counts_as_served(stopped):
    train = loader()
    fit(train, epochs=2, callbacks=[Seen(stop_at=stopped)])
    assert train.epoch == -(-stopped // 3)


def test_an_error_in_an_epoch_leaves_the_loader_at_the_next():
    train = loader()

    class Fails(cvkit.Callback):
        def on_batch_end(self, state):
            raise OSError("no")

    with pytest.raises(OSError, match="no"):
        fit(train, callbacks=[Fails()])
    assert train.epoch == 1


def test_what_only_looks_leaves_the_loader_where_it_is():
    train = loader()
    fit(train, epochs=2)
    model = network()
    cvkit.evaluate(model, train)
    cvkit.predict(model, train)
    cvkit.preflight(model, train)
    cvkit.find_lr(model, train, steps=10)
    assert train.state_dict() == {"seed": 0, "epoch": 2, "batch": 0}


def test_evaluate_sees_the_epoch_at_which_the_loader_stands():
    model, train = network(), loader()
    values = []
    for epoch in (0, 1, 0):
        train.set_epoch(epoch)
        values.append(cvkit.evaluate(model, train)["loss"])
    assert values[0] == values[2] != values[1]


def two_phases(directory, train, killed=None):
    """A script of two phases, as "freeze, fit, unfreeze, fit" is one; ``killed`` ends it before the end of a phase."""
    model, seen = network(), []
    for phase in ("one", "two"):
        stop = Seen(stop_at=killed[1] if killed is not None and killed[0] == phase else None)
        callbacks = [stop, Checkpoint(directory / phase, every_steps=1, monitor=None)]
        batches, result = fit(train, EPOCHS, callbacks, model, resume=True)
        seen += batches
        if result.stop_reason == "asked":
            break
    return seen, model


@pytest.mark.parametrize("killed", [("one", 2), ("one", 3), ("one", 6), ("two", 1), ("two", 3), ("two", 5)])
def test_a_script_of_two_phases_killed_anywhere_is_the_undisturbed_one(tmp_path, killed):
    whole, model = two_phases(tmp_path / "whole", loader())
    first, _ = two_phases(tmp_path / "parts", loader(), killed)
    second, continued = two_phases(tmp_path / "parts", loader())  # a new process begins with a new loader
    assert equal(first + second, whole)
    assert torch.equal(continued[1].weight, model[1].weight)


def test_a_run_without_the_number_in_its_file_began_with_epoch_0(tmp_path):
    train = loader()
    fit(train, epochs=2, callbacks=[Seen(stop_at=2), Checkpoint(tmp_path, every_steps=1, monitor=None)])
    content = cvkit.load_checkpoint(tmp_path / "last.pt")
    assert content["training"].pop("first_epoch") == 0
    cvkit.save_checkpoint(tmp_path / "last.pt", content)
    train.set_epoch(7)
    batches, _ = fit(train, epochs=2, callbacks=[Checkpoint(tmp_path, every_steps=1, monitor=None)], resume=True)
    assert equal(batches, fit(loader(), epochs=2)[0][2:])


def test_a_sampler_that_counts_epochs_goes_on_too():
    data = TensorDataset(torch.randn(24, 3, 8, 8), torch.arange(24) % 3)
    sampler = DistributedSampler(data, num_replicas=1, rank=0, shuffle=True)
    train = DataLoader(data, batch_size=8, sampler=sampler)
    first, second = fit(train)[0], fit(train)[0]
    assert not equal(first, second)
    assert sampler.epoch == 2


def test_a_seed_does_not_bring_an_epoch_back():
    train = loader()
    assert not equal(fit(train, seed=0)[0], fit(train, seed=0)[0])
