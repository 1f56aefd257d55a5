"""The figures themselves: no display, no global state, shown in notebooks, and a hint where matplotlib is missing."""

import gc
import io
import os
import pickle
import subprocess
import sys
import weakref

import pytest
import torch
from matplotlib.figure import Figure

import cvkit
from cvkit import plots
from cvkit.errors import MissingDependencyError
from cvkit.figures import new_figure

IMAGES = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
CURVE = cvkit.LRCurve([0.1, 0.2, 0.3, 0.4], [1.0, 0.5, 0.2, 0.1], 1.0, diverged=False)
MODEL = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 2))
LABELLED = IMAGES, torch.tensor([0, 1, 0, 1])
MAKERS = {
    "show_batch": lambda: plots.show_batch(LABELLED),
    "show_predictions": lambda: plots.show_predictions(MODEL, LABELLED),
    "top_losses": lambda: plots.top_losses(MODEL, [LABELLED]),
    "show_masks": lambda: plots.show_masks((IMAGES, torch.ones(4, 8, 8, dtype=torch.long))),
    "plot_history": lambda: plots.plot_history(cvkit.History([{"loss": 1.0}])),
    "confusion_matrix": lambda: plots.confusion_matrix([[1, 0], [0, 1]]),
    "find_lr": lambda: CURVE.plot(),
}
each = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)


def test_every_public_name_of_the_room_is_here():
    assert set(MAKERS) == {*plots.__all__, "find_lr"}


@each
def test_it_is_a_figure_that_can_be_written(make):
    figure, file = make(), io.BytesIO()
    assert isinstance(figure, Figure)
    figure.savefig(file)
    assert file.getvalue().startswith(b"\x89PNG")


@each
def test_a_notebook_asks_it_for_an_image_and_gets_one(make):
    """IPython calls ``_repr_png_`` of an object for which no formatter is registered; matplotlib registers one with pyplot only."""
    assert make()._repr_png_().startswith(b"\x89PNG")


@each
def test_it_is_gone_when_nobody_holds_it(make):
    figure = weakref.ref(make())
    gc.collect()
    assert figure() is None


def test_it_travels():
    figure = pickle.loads(pickle.dumps(MAKERS["show_batch"]()))
    assert len(figure.axes) == 4
    assert figure._repr_png_().startswith(b"\x89PNG")


def test_neither_pyplot_nor_a_display_is_needed():
    code = """
import sys, torch, cvkit
assert "matplotlib" not in sys.modules
figure = cvkit.plots.show_batch(torch.zeros(2, 1, 4, 4))
figure.savefig("/dev/null", format="png")
assert "matplotlib.pyplot" not in sys.modules
"""
    environment = {name: value for name, value in os.environ.items() if name != "DISPLAY"} | {"MPLBACKEND": "tkagg"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stderr) == (0, "")


@each
def test_without_matplotlib_it_is_said_what_to_install(make, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingDependencyError) as caught:
        make()
    message = str(caught.value).splitlines()
    assert message[0] == "drawing needs matplotlib"
    assert message[-1] == '  fix: pip install "cvkit[plots]"'
    assert isinstance(caught.value, ImportError)


def test_a_figure_is_as_large_as_asked():
    assert new_figure(3, 2).get_size_inches().tolist() == [3, 2]
