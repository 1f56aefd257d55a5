"""``confusion_matrix``: what is counted, from whatever is given, and what is written."""

import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from cvkit.errors import ArgumentError
from cvkit.plots import confusion_matrix

COUNTS = [[8, 2, 0], [0, 5, 5], [0, 0, 0]]


def cells(axes):
    """What is written into the matrix, by row and column."""
    found = {}
    for text in axes.texts:
        column, row = text.get_position()
        found[int(row), int(column)] = text.get_text()
    return found


def names(axes):
    return [label.get_text() for label in axes.get_xticklabels()], [
        label.get_text() for label in axes.get_yticklabels()
    ]


def test_counts_are_written_and_the_colour_is_the_share_of_the_row():
    figure = confusion_matrix(COUNTS, classes=["ants", "bees", "cats"])
    (axes,) = figure.axes
    assert cells(axes) == {(0, 0): "8", (0, 1): "2", (1, 1): "5", (1, 2): "5"}
    shares = np.ma.filled(axes.images[0].get_array().astype(float), np.nan)
    assert shares[:2].tolist() == [[0.8, 0.2, 0.0], [0.0, 0.5, 0.5]]
    assert np.isnan(shares[2]).all(), "a class without samples"
    assert axes.images[0].get_clim() == (0, 1)
    assert names(axes) == (["ants", "bees", "cats"],) * 2
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted", "truth")
    assert figure.get_suptitle() == "13 of 20 right (65.0 %)"
    assert [text.get_color() for text in axes.texts] == ["white", "black", "black", "black"], "readable on its cell"


@pytest.mark.parametrize("kind", ["indices", "scores", "counts", "lists", "metric"])
def test_whatever_is_given_the_counts_are_the_same(kind):
    so = torch.tensor([0] * 10 + [1] * 10)
    said = torch.tensor([0] * 8 + [1] * 2 + [1] * 5 + [2] * 5)

    class Metric:
        def compute(self):
            return torch.tensor(COUNTS)

    given_ = {
        "indices": (said, so),
        "scores": (nn.functional.one_hot(said, 3).float(), so),
        "counts": (torch.tensor(COUNTS).float(),),
        "lists": (said.tolist(), so.tolist()),
        "metric": (Metric(),),
    }[kind]
    assert cells(confusion_matrix(*given_).axes[0]) == {(0, 0): "8", (0, 1): "2", (1, 1): "5", (1, 2): "5"}


def test_a_model_is_asked_over_the_whole_loader(loader, fixed):
    outputs = nn.functional.one_hot(torch.tensor([0, 1, 2, 1, 1, 2, 0]), 3).float()
    figure = confusion_matrix(fixed(outputs), loader)
    assert cells(figure.axes[0]) == {(0, 0): "2", (0, 1): "1", (1, 1): "2", (2, 2): "2"}
    assert names(figure.axes[0])[1] == ["ants", "bees", "cats"]


def test_one_logit_a_sample_tells_two_classes():
    class Sign(nn.Module):
        def forward(self, inputs):
            return inputs.mean((1, 2, 3))[:, None] - 0.5

    inputs = torch.tensor([0.1, 0.9, 0.8, 0.2]).reshape(4, 1, 1, 1)
    figure = confusion_matrix(Sign(), [(inputs, torch.tensor([0.0, 1.0, 0.0, 0.0]))])
    assert cells(figure.axes[0]) == {(0, 0): "2", (0, 1): "1", (1, 1): "1"}


def test_what_does_not_count_is_left_out():
    assert confusion_matrix([0, 1, 1], [0, -100, 1]).get_suptitle() == "2 of 2 right (100.0 %)"


def test_one_class_is_a_matrix_of_one():
    figure = confusion_matrix([0, 0], [0, 0], classes=["only"])
    assert cells(figure.axes[0]) == {(0, 0): "2"}


@settings(max_examples=25)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=30))
def test_every_pair_is_counted_once(pairs):
    figure = confusion_matrix([said for said, _ in pairs], [so for _, so in pairs])
    written = {place: int(text) for place, text in cells(figure.axes[0]).items()}
    assert written == {(so, said): pairs.count((said, so)) for said, so in pairs}


def test_of_many_classes_the_most_frequent_confusions_are_listed_and_the_names_thinned_out():
    counts = np.eye(100, dtype=int) * 50
    counts[3, 7], counts[99, 0] = 20, 30
    figure = confusion_matrix(counts, classes=[f"class {index}" for index in range(100)])
    axes, bar, listed = figure.axes
    assert cells(axes) == {}
    assert names(axes)[0] == [f"class {index}" for index in range(0, 100, 2)]
    assert listed.texts[0].get_text() == (
        "most frequent confusions\n(truth → predicted)\n\n30 × class 99 → class 0\n20 × class 3 → class 7"
    )
    assert bar.get_ylabel() == "share of the row"
    assert figure.savefig("/dev/null", format="png") is None


def test_long_names_keep_their_ends():
    figure = confusion_matrix([[1, 0], [0, 1]], classes=["an uncommonly long name", "$b$"])
    assert names(figure.axes[0])[0] == ["an uncomm…ong name", "$b$"]
    assert figure.savefig("/dev/null", format="png") is None


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((torch.zeros(3, 3),), {}, "there is no confusion matrix to draw\n  got: float32 (3, 3), all zero"),
        ((torch.ones(2, 3),), {}, "there is no confusion matrix to draw\n  got: float32 (2, 3)"),
        (([[0.5, 0.5], [1.0, 0.0]],), {}, "got: float64 (2, 2)"),
        (([0, 1], [0, 1, 1]), {}, "predicted and truth are not of the same samples\n  got: 2 and 3 of them"),
        (([0, 4], [0, 1]), {"classes": ["a", "b"]}, "got: a class 4\n  expected: classes from 0 to 1"),
        ((COUNTS,), {"classes": ["a", "b"]}, "got: 2 class names\n  expected: a matrix of 3 classes"),
        ((torch.zeros(2, 3, 4, 4), [0, 1]), {}, "predicted cannot be counted\n  got: shape (2, 3, 4, 4)"),
        (([], []), {}, "there is no confusion matrix to draw"),
        ((nn.Identity(),), {}, "there is no confusion matrix to draw"),
    ],
)
def test_what_cannot_be_counted_is_refused(arguments, options, message):
    with pytest.raises(ArgumentError, match=re.escape(message)):
        confusion_matrix(*arguments, **options)
