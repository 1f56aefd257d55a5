"""Prediction and Predictions: names, probabilities, tables."""

import copy
import csv
import io
import pickle
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import cvkit
from cvkit.errors import ArgumentError
from cvkit.inference import Prediction, Predictions


def prediction(*scores, classes=None, path="x.png", task="classification"):
    names = tuple(classes or "abcdefgh"[: len(scores)])
    return Prediction(
        task=task,
        classes=names,
        path=path and Path(path),
        size=(4, 6),
        scores=torch.tensor(scores, dtype=torch.float32),
    )


def test_the_most_probable_class_is_the_label():
    one = prediction(0.25, 0.625, 0.125)
    assert (one.label, one.probability, one.index) == ("b", 0.625, 1)
    assert list(one.probabilities.items()) == [("b", 0.625), ("a", 0.25), ("c", 0.125)]
    assert one.top(2) == [("b", 0.625), ("a", 0.25)]
    assert one.top(99) == one.top() == list(one.probabilities.items())
    assert one.labels == ["b"]
    assert repr(one) == "Prediction(label='b', probability=0.625)"


def test_of_equals_the_first_comes_first():
    one = prediction(0.25, 0.25, 0.25, 0.25)
    assert one.label == "a"
    assert list(one.probabilities) == ["a", "b", "c", "d"]


@given(st.lists(st.floats(0, 1, width=32), min_size=1, max_size=8), st.integers(1, 9))
def test_the_top_is_sorted_and_begins_with_the_label(scores, count):
    one = prediction(*scores)
    top = one.top(count)
    assert len(top) == min(count, len(scores))
    assert top[0] == (one.label, one.probability)
    assert [value for _, value in top] == sorted(scores, reverse=True)[:count]
    assert dict(one.top(8)) == one.probabilities == dict(zip(one.classes, scores, strict=True))


@pytest.mark.parametrize("count", [0, -1, True, 1.5])
def test_a_top_of_no_count_is_refused(count):
    with pytest.raises(ArgumentError, match="top: count cannot be used"):
        prediction(0.5, 0.5).top(count)


def test_where_several_may_be_right_labels_are_the_likely_ones():
    one = prediction(0.5, 0.1, 0.9, task="multilabel")
    assert one.labels == ["c", "a"]
    assert one.row()["label"] == "c|a"
    assert prediction(0.1, 0.2, task="multilabel").labels == []


def test_what_a_prediction_does_not_have_is_said():
    one = prediction(0.5, 0.5)
    with pytest.raises(ArgumentError) as caught:
        one.mask  # noqa: B018
    assert str(caught.value) == (
        "this prediction has no mask\n"
        "  got: the prediction of a model for classification\n"
        "  expected: label, probability, probabilities, top(k)\n"
        "  fix: take what is there; cvkit.predict(model, data) gives the outputs of any model"
    )
    assert hasattr(one, "label")
    for name in ("mask", "present", "probability_maps", "value", "image", "outputs"):
        assert not hasattr(one, name), name


def test_predictions_are_a_sequence():
    several = Predictions([prediction(0.5, 0.5), prediction(0.25, 0.75), prediction(1.0, 0.0)])
    assert len(several) == 3
    assert several[1].label == several[-2].label == "b"
    assert isinstance(several[:2], Predictions)
    assert several[1:].labels == ["b", "a"]
    assert [one.label for one in several] == several.labels == ["a", "b", "a"]
    assert several.probabilities.tolist() == [[0.5, 0.5], [0.25, 0.75], [1.0, 0.0]]
    assert several.paths == [Path("x.png")] * 3
    assert several[0] in several
    assert repr(several[:1]) == "Predictions(1: Prediction(label='a', probability=0.5))"
    assert repr(Predictions([])) == "Predictions(0)"


@pytest.mark.parametrize("twin", [copy.copy, copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))])
def test_they_travel(twin):
    several = Predictions([prediction(0.5, 0.5), prediction(0.25, 0.75)], {"y.png": "why"})
    other = twin(several)
    assert (other.rows, other.skipped) == (several.rows, several.skipped)


def test_rows_and_csv_have_the_path_the_label_and_a_column_a_class(tmp_path):
    several = Predictions([prediction(0.25, 0.75), prediction(1.0, 0.0, path=None)])
    assert several.rows == [
        {"path": "x.png", "label": "b", "probability": 0.75, "a": 0.25, "b": 0.75},
        {"path": None, "label": "a", "probability": 1.0, "a": 1.0, "b": 0.0},
    ]
    text = several.to_csv(tmp_path / "new" / "found.csv")
    assert text == "path,label,probability,a,b\nx.png,b,0.75,0.25,0.75\n,a,1,1,0\n"
    assert (tmp_path / "new" / "found.csv").read_bytes() == text.encode()
    assert several.to_csv() == text
    assert Predictions([]).to_csv() == "path\n"


def test_the_rows_make_a_data_frame():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(Predictions([prediction(0.25, 0.75)]).rows)
    assert frame.columns.tolist() == ["path", "label", "probability", "a", "b"]
    assert frame["b"].tolist() == [0.75]


def test_a_class_that_is_called_like_a_column_gets_a_column_of_its_own():
    names = ["label", "path", "label (class)", "x"]
    row = prediction(0.5, 0.25, 0.125, 0.125, classes=names).row()
    assert row == {
        "path": "x.png",
        "label": "label",
        "probability": 0.5,
        "label (class) (class)": 0.5,
        "path (class)": 0.25,
        "label (class)": 0.125,
        "x": 0.125,
    }


@given(st.lists(st.floats(0, 1, width=32), min_size=2, max_size=8), st.text(min_size=1).filter(lambda s: "\0" not in s))
def test_what_is_in_a_csv_is_read_back_exactly(scores, name):
    classes = [name, *(f"{name}{number}" for number in range(1, len(scores)))]
    several = Predictions([prediction(*scores, classes=classes, path=f"{name}.png")])
    header, row = csv.reader(io.StringIO(several.to_csv(), newline=""))
    values = several.rows[0]
    assert header == list(values)
    assert row[:2] == [values["path"], values["label"]]
    assert torch.equal(torch.tensor([float(one) for one in row[3:]]), several[0].scores)


def test_a_name_that_is_no_unicode_goes_into_a_file(tmp_path):
    several = Predictions([prediction(0.5, 0.5, path="caf\udce9.png")])
    several.to_csv(tmp_path / "x.csv")
    assert b"caf\xe9.png" in (tmp_path / "x.csv").read_bytes()


def test_a_real_run_has_it_all(run, predictor, tmp_path):
    found = predictor.predict(run.folder)
    assert found[0].classes == ("a", "b c", "d")
    assert found.probabilities.shape == (15, 3)
    assert found.probabilities.sum(1).tolist() == pytest.approx([1.0] * 15)
    rows = list(csv.DictReader(io.StringIO(found.to_csv(tmp_path / "x.csv"))))
    assert list(rows[0]) == ["path", "label", "probability", "a", "b c", "d"]
    assert [row["path"] for row in rows] == [str(path) for path in found.paths]
    assert all(row[row["label"]] == row["probability"] for row in rows)
    assert isinstance(cvkit.Predictions(list(found)), Predictions)
