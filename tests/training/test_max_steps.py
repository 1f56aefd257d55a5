"""``fit(max_steps=…)``: the run ends after so many updates, its schedule with it, and it is continued exactly."""

import pytest
import torch
from torch import nn

from cvkit.callbacks import Checkpoint
from cvkit.errors import ArgumentError, CvkitWarning
from cvkit.training import Callback, fit


def batches():
    generator = torch.Generator().manual_seed(0)
    return [(torch.randn(4, 4, generator=generator), torch.randint(0, 3, (4,), generator=generator)) for _ in range(5)]


class Rates(Callback):
    def __init__(self):
        self.rates = []

    def on_batch_end(self, state):
        self.rates.append(state.lr)


def run(directory=None, *, epochs=3, max_steps=None, **options):
    torch.manual_seed(0)
    seen = Rates()
    saving = [Checkpoint(directory, monitor=None)] if directory is not None else []
    result = fit(
        nn.Linear(4, 3), batches(), batches(), epochs=epochs, max_steps=max_steps, lr=0.1, device="cpu", progress=False,
        callbacks=[seen, *saving], resume=directory is not None, **options,
    )  # fmt: skip
    return result, seen.rates


def test_the_run_ends_there_in_the_middle_of_an_epoch():
    result, _ = run(max_steps=7)
    assert (result.steps, result.epochs, result.stop_reason) == (7, 1, "max_steps")
    assert len(result.history.rows) == 1


def test_an_epoch_that_is_complete_by_then_is_validated():
    result, _ = run(max_steps=10)
    assert (result.steps, result.epochs, result.stop_reason) == (10, 2, "max_steps")
    assert len(result.history["val_loss"]) == 2


@pytest.mark.parametrize("most", [15, 100])
def test_a_bound_beyond_the_epochs_changes_nothing(most):
    bounded, rates = run(max_steps=most, schedule="cosine")
    free, all_rates = run(schedule="cosine")
    assert (bounded.stop_reason, rates) == ("finished", all_rates)
    assert torch.equal(bounded.model.weight, free.model.weight)


def test_a_schedule_ends_with_it_and_updates_are_counted_not_batches():
    assert run(max_steps=4, schedule="linear")[1] == pytest.approx([0.1, 0.075, 0.05, 0.025])
    result, rates = run(max_steps=4, schedule="linear", accumulate=2)
    assert (result.steps, len(rates)) == (4, 7)  # 3 updates an epoch, the last one of a single batch


def test_a_larger_bound_continues_exactly(tmp_path):
    whole, _ = run(max_steps=12)
    run(tmp_path, max_steps=7)
    result, rates = run(tmp_path, max_steps=12)
    assert len(rates) == 5
    assert torch.equal(result.model.weight, whole.model.weight)
    again, none = run(tmp_path, max_steps=12)
    assert (again.stop_reason, again.steps, none) == ("max_steps", 12, [])


def test_a_new_length_moves_the_schedule_and_says_so(tmp_path):
    run(tmp_path, max_steps=4, schedule="linear")
    with pytest.warns(CvkitWarning, match="was planned for 4 updates and is now to have 8"):
        _, rates = run(tmp_path, max_steps=8, schedule="linear")
    assert rates == pytest.approx([0.05, 0.0375, 0.025, 0.0125])


@pytest.mark.parametrize("given", [0, -1, 2.5, True])
def test_what_is_no_number_of_updates_is_refused(given):
    with pytest.raises(ArgumentError, match="max_steps cannot be used"):
        run(max_steps=given)
