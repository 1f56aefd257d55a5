import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cvkit.errors import ArgumentError, UnknownNameError
from cvkit.metrics import Accuracy, Mean
from cvkit.metrics.async_scalars import WeightedSum
from cvkit.training import History

entries = st.lists(st.tuples(st.floats(-1e3, 1e3, width=32), st.integers(1, 64)), min_size=1, max_size=200)


@given(entries, st.sets(st.integers(0, 199)))
def test_a_tally_is_the_sum_in_order_whoever_looks_in_between(values, looks):
    running_sum, total, weight = WeightedSum(), 0.0, 0
    for place, (value, count) in enumerate(values):
        running_sum.add(torch.tensor(value), count, count)
        total += value * count
        weight += count
        if place in looks:
            running_sum.send()
    saved = running_sum.state_dict()
    assert (running_sum.total, running_sum.mean) == (total, total / weight)
    again = WeightedSum()
    again.load_state_dict(saved)
    assert again.state_dict() == saved


def test_a_tally_names_the_first_value_that_is_not_finite():
    running_sum = WeightedSum()
    for value in (1.0, math.inf, math.nan):
        running_sum.add(torch.tensor(value), 1, 1)
    running_sum.wait_for_all()
    assert running_sum.first_nonfinite == 1


@pytest.mark.parametrize(
    ("outputs", "targets", "expected"),
    [
        ([[1.0, 2.0], [3.0, 0.0], [0.0, 1.0]], [1, 1, 1], 2 / 3),
        ([[1.0, 2.0], [3.0, 0.0]], [[0.1, 0.9], [0.2, 0.8]], 1 / 2),
        ([[0.5], [-0.5]], [1, 1], 1 / 2),
    ],
    ids=["classes", "soft targets", "one logit"],
)
def test_accuracy_counts_integers(outputs, targets, expected):
    metric = Accuracy()
    metric.update(torch.tensor(outputs), torch.tensor(targets))
    assert metric.compute() == expected
    metric.reset()
    assert math.isnan(metric.compute())


def test_accuracy_leaves_out_what_is_to_be_ignored_and_mean_weighs_by_samples():
    metric = Accuracy(ignore_index=255)
    metric.update(torch.tensor([[0.0, 1.0]] * 3), torch.tensor([1, 0, 255]))
    assert metric.compute() == 1 / 2
    mean = Mean(lambda outputs, targets: outputs.mean())
    mean.update(torch.ones(3, 1), torch.zeros(3))
    mean.update(torch.zeros(1, 1), torch.zeros(1))
    assert mean.compute() == 3 / 4


def test_a_history_gives_rows_columns_the_best_a_file_and_a_table(tmp_path):
    history = History(
        [{"epoch": 1, "val_loss": 0.5, "val_accuracy": 0.8}, {"epoch": 2, "val_loss": 0.4, "val_accuracy": 0.7}]
    )
    assert history["val_loss"] == [0.5, 0.4]
    assert history[-1]["epoch"] == 2
    assert (history.best("val_loss")["epoch"], history.best("val_accuracy")["epoch"]) == (2, 1)
    assert history.to_csv(tmp_path / "h.csv") == (tmp_path / "h.csv").read_text()
    assert str(history).splitlines()[0].split() == ["epoch", "val_loss", "val_accuracy"]
    with pytest.raises(UnknownNameError, match=r"unknown history column 'val_los'(\n.*)*did you mean 'val_loss'"):
        history["val_los"]
    with pytest.raises(ArgumentError, match="holds no finite value"):
        History([{"loss": math.nan}]).best("loss")
