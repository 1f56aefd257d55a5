"""What outputs mean, compared with what is written out by hand."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cvkit.outputs import OutputSpec, decode, is_mixture, task_of_outputs, task_of_pair

CLASSIFY, BINARY, MANY = (
    OutputSpec("classification", "softmax"),
    OutputSpec("binary", "sigmoid"),
    OutputSpec("multilabel", "sigmoid"),
)
VALUES = OutputSpec("regression", "none")


def test_one_of_several_classes():
    outputs = torch.tensor([[0.0, math.log(3)], [math.log(4), 0.0]])
    found = decode(outputs, CLASSIFY)
    assert found.task == "classification"
    assert found.predictions.tolist() == [1, 0]
    assert found.probabilities.tolist() == [pytest.approx([0.25, 0.75]), pytest.approx([0.8, 0.2])]
    assert found.confidence.tolist() == pytest.approx([0.75, 0.8])
    assert found.classes == 2


@pytest.mark.parametrize("shape", [(2,), (2, 1)])
def test_one_output_is_the_second_of_two_classes(shape):
    found = decode(torch.tensor([math.log(3), -math.log(4)]).reshape(shape), BINARY)
    assert found.predictions.tolist() == [1, 0]
    assert found.probabilities.tolist() == [pytest.approx([0.25, 0.75]), pytest.approx([0.8, 0.2])]


def test_outputs_that_are_probabilities_stay_as_they_are():
    found = decode(torch.tensor([[0.3], [0.9]]), OutputSpec("binary", "none"))
    assert found.predictions.tolist() == [0, 1]
    assert found.probabilities.tolist() == [pytest.approx([0.7, 0.3]), pytest.approx([0.1, 0.9])]
    assert OutputSpec("binary", "none").threshold == 0.5
    assert BINARY.threshold == 0.0


def test_any_of_several_labels():
    found = decode(torch.tensor([[math.log(3), -math.log(9)], [math.log(1.5), math.log(3)]]), MANY)
    assert found.predictions.tolist() == [[True, False], [True, True]]
    assert found.probabilities.tolist() == [pytest.approx([0.75, 0.1]), pytest.approx([0.6, 0.75])]
    assert found.confidence.tolist() == pytest.approx([0.75, 0.6])


def test_a_class_for_each_pixel():
    outputs = torch.randn(2, 3, 4, 5)
    found = decode(outputs, OutputSpec("segmentation", "softmax"))
    assert torch.equal(found.predictions, outputs.argmax(1))
    assert torch.allclose(found.probabilities, outputs.softmax(1))
    assert torch.allclose(found.confidence, outputs.softmax(1).amax(1).mean((1, 2)))


def test_a_map_of_one_channel_is_the_second_of_two_classes():
    outputs = torch.randn(2, 1, 4, 5)
    found = decode(outputs, OutputSpec("segmentation", "sigmoid"))
    assert torch.equal(found.predictions, (outputs[:, 0] > 0).long())
    assert found.probabilities.shape == (2, 2, 4, 5)


def test_values_are_themselves():
    outputs = torch.randn(3, 2, requires_grad=True)
    found = decode(outputs, VALUES)
    assert torch.equal(found.predictions, outputs)
    assert not found.predictions.requires_grad
    assert (found.probabilities, found.confidence, found.classes) == (None, None, 0)


@given(st.integers(1, 5), st.integers(2, 6), st.integers(0, 99))
def test_probabilities_of_classes_sum_to_one_and_the_prediction_is_the_largest(count, classes, seed):
    outputs = torch.randn(count, classes, generator=torch.Generator().manual_seed(seed)) * 5
    found = decode(outputs, CLASSIFY)
    assert torch.allclose(found.probabilities.sum(1), torch.ones(count))
    assert torch.equal(found.predictions, outputs.argmax(1))


N, C = 4, 3
PAIRS = [
    (CLASSIFY, (N, C), torch.zeros(N, dtype=torch.long), "classification"),
    (CLASSIFY, (N, C), torch.zeros(N, 1, dtype=torch.long), "classification"),
    (CLASSIFY, (N, C), torch.full((N, C), 1 / C), "classification"),
    (CLASSIFY, (N, C, 5, 6), torch.zeros(N, 5, 6, dtype=torch.long), "segmentation"),
    (BINARY, (N, 1), torch.zeros(N), "binary"),
    (BINARY, (N,), torch.zeros(N, 1), "binary"),
    (BINARY, (N, C), torch.zeros(N, C), "multilabel"),
    (MANY, (N, C), torch.zeros(N, C), "multilabel"),
    (BINARY, (N, 1, 5, 6), torch.zeros(N, 5, 6), "segmentation"),
    (OutputSpec("segmentation"), (N, 1, 5, 6), torch.zeros(N, 1, 5, 6), "segmentation"),
    (OutputSpec("segmentation"), (N, C, 5, 6), torch.zeros(N, 5, 6, dtype=torch.long), "segmentation"),
    (VALUES, (N, 1), torch.zeros(N), "regression"),
    (VALUES, (N, C), torch.zeros(N, C), "regression"),
    (VALUES, (N, 1, 5, 6), torch.zeros(N, 1, 5, 6), "reconstruction"),
    (OutputSpec(), (N, C), torch.zeros(N, dtype=torch.long), "classification"),
    (OutputSpec(), (N, C), torch.randn(N, C), "regression"),
    (OutputSpec(), (N, 3, 5, 6), torch.zeros(N, 3, 5, 6), "reconstruction"),
    (CLASSIFY, (N, C), torch.zeros(N + 1, dtype=torch.long), None),
    (CLASSIFY, (N, C, 5, 6), torch.zeros(N, 7, 7, dtype=torch.long), None),
]


@pytest.mark.parametrize(("spec", "shape", "targets", "task"), PAIRS)
def test_targets_tell_the_task(spec, shape, targets, task):
    assert task_of_pair(torch.randn(shape), targets, spec) == task


def test_outputs_as_large_as_the_inputs_are_images_flattened_or_not():
    inputs, outputs = torch.zeros(N, 1, 5, 6), torch.randn(N, 30)
    assert task_of_pair(outputs, torch.randn(N, 30), VALUES, inputs) == "reconstruction"
    assert task_of_pair(outputs, torch.randn(N, 30), VALUES) == "regression"


SHAPES = [
    (OutputSpec(), (N, C), C, "classification"),
    (OutputSpec(), (N, C, 5, 6), C, "segmentation"),
    (OutputSpec(), (N, C, 1, 1), C, "classification"),
    (OutputSpec(), (N, 1), 2, "binary"),
    (OutputSpec(), (N, 4), None, "regression"),
    (OutputSpec(), (N, 3, 5, 6), None, "reconstruction"),
    (MANY, (N, C), C, "multilabel"),
    (MANY, (N, 1), 2, "binary"),
    (OutputSpec("regression"), (N, C), C, "regression"),
]


@pytest.mark.parametrize(("spec", "shape", "classes", "task"), SHAPES)
def test_the_number_of_classes_tells_the_task(spec, shape, classes, task):
    assert task_of_outputs(shape, spec, classes) == task


def test_a_mixture_sums_to_one_and_is_nowhere_negative():
    assert is_mixture(torch.tensor([[0.5, 0.5], [1.0, 0.0]]))
    assert not is_mixture(torch.tensor([[1.0, 1.0]]))
    assert not is_mixture(torch.tensor([[1.5, -0.5]]))
