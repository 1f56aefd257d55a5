"""Each call of fit gives its model epochs that the loader has not served before; a resumed one those of its run."""

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

import cvkit
from cvkit.callbacks import Checkpoint, EarlyStopping
from cvkit.data import ArrayDataset, Loader
from cvkit.transforms import denoise, small_image_train

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


def noisy():
    """A validation loader that draws fresh noise in each epoch."""
    images = torch.full((12, 3, 8, 8), 128, dtype=torch.uint8)
    return Loader(ArrayDataset(images, torch.zeros(12)), 8, transform=denoise(8, noise=0.3))


class Validated(cvkit.Callback):
    """Keeps the inputs of every validation batch."""

    def __init__(self):
        self.batches = []

    def on_validation_batch_end(self, state):
        self.batches.append(state.batch[0].clone())


def restored():
    torch.manual_seed(0)
    return nn.Conv2d(3, 3, 1)


def denoised(train, val, epochs=2, callbacks=(), **options):
    model = restored()
    options |= {"loss": "mse", "progress": False, "callbacks": callbacks}
    return cvkit.fit(model, train, val, epochs=epochs, **options).history, model


def test_a_validation_with_noise_is_the_same_in_each_run_so_that_runs_compare():
    train, val, seen = noisy(), noisy(), [Validated(), Validated()]
    histories = [denoised(train, val, callbacks=[one])[0] for one in seen]
    assert equal(seen[0].batches, seen[1].batches)
    assert not equal(seen[0].batches[:2], seen[0].batches[2:])
    assert histories[0]["train_loss"] != histories[1]["train_loss"]


def test_a_finished_run_that_is_run_again_evaluates_to_the_same_number(tmp_path):
    numbers = []
    for _ in range(2):
        val = noisy()
        _, model = denoised(noisy(), val, callbacks=[Checkpoint(tmp_path)], resume=True)
        numbers.append(cvkit.evaluate(model, val, loss="mse")["loss"])
    assert numbers[0] == numbers[1]


@pytest.mark.filterwarnings("ignore:CV217")
def test_a_loader_that_trains_and_validates_is_moved_by_training_alone():
    both, seen = loader(), Seen()
    for _ in range(2):
        cvkit.fit(network(), both, both, epochs=2, progress=False, callbacks=[seen])
    assert both.epoch == 4
    assert equal(seen.batches, fit(loader(), epochs=4)[0])


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


def global_order():
    """A torch loader that draws its order from the global generator."""
    data = TensorDataset(torch.linspace(0, 1, 24 * 192).view(24, 3, 8, 8), torch.arange(24) % 3)
    return DataLoader(data, 8, shuffle=True)


@pytest.mark.parametrize("killed", [("one", 6), ("two", 1), ("two", 4)])
def test_a_torch_loader_in_two_phases_goes_on_with_the_random_numbers_of_the_first(tmp_path, killed):
    whole, model = two_phases(tmp_path / "whole", global_order())
    first, _ = two_phases(tmp_path / "parts", global_order(), killed)
    second, continued = two_phases(tmp_path / "parts", global_order())
    assert equal(first + second, whole)
    assert torch.equal(continued[1].weight, model[1].weight)


def test_a_first_phase_that_stopped_early_leaves_the_loader_where_it_did_then(tmp_path):
    def script():
        train, early = loader(), EarlyStopping("train_loss", patience=0, min_delta=10.0)
        batches, result = fit(train, 9, [early, Checkpoint(tmp_path, monitor=None)], resume=True)
        return len(batches), result.epochs, train.epoch

    assert script() == (6, 2, 2)
    assert script() == (0, 2, 2)


def test_a_run_that_began_later_is_resumed_with_its_epochs_on_a_fresh_loader(tmp_path):
    def later():
        made = loader()
        made.set_epoch(6)
        return made

    saving = Checkpoint(tmp_path, every_steps=1, monitor=None)
    whole, _ = fit(later(), epochs=2)
    first, _ = fit(later(), 2, [Seen(stop_at=2), saving])
    train = loader()
    second, _ = fit(train, 2, [saving], resume=True)
    assert equal(first + second, whole)
    assert train.epoch == 8


def test_a_whole_iteration_by_hand_counts_as_served_and_one_left_early_does_not():
    train, whole = loader(), fit(loader(), epochs=2)[0]
    next(iter(train))
    by_hand = [inputs for inputs, _ in train]
    assert equal(by_hand + fit(train)[0], whole)


def test_find_lr_tries_the_batches_that_fit_sees_next():
    train, tried = loader(), []
    train.set_epoch(5)

    def step(model, batch, state):
        tried.append(batch[0].clone())
        return nn.functional.cross_entropy(model(batch[0]), batch[1])

    cvkit.find_lr(network(), train, steps=10, step=step)
    assert equal(tried[1:4], fit(train)[0])  # after the one that is looked at first


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
