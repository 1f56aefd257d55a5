"""The bar over many images: in a terminal, ten refreshes a second at most, gone at the end."""

import io
import sys
from types import SimpleNamespace

import pytest

from cvkit.errors import ImageError
from cvkit.inference import progress_bar


class Terminal(io.StringIO):
    def __init__(self, tty):
        super().__init__()
        self.tty = tty

    def isatty(self):
        return self.tty


def shown_on(monkeypatch, tty):
    """Standard error, which pytest puts back between the phases of a test: hence for ``told`` alone."""
    out = Terminal(tty)
    monkeypatch.setattr(progress_bar, "sys", SimpleNamespace(stderr=out, modules=sys.modules))
    return out


@pytest.fixture
def terminal(monkeypatch):
    return shown_on(monkeypatch, True)


def test_a_terminal_shows_a_bar_and_nothing_of_it_stays(run, predictor, terminal):
    predictor.predict(run.folder)
    text = terminal.getvalue()
    assert "predicting:" in text
    assert "0/15" in text
    assert text.rstrip(" \n").endswith("\r")


@pytest.mark.parametrize("options", [{"progress": False}, {"batch_size": 15}])
def test_no_bar_where_none_is_wanted_or_there_is_one_batch(run, predictor, terminal, options):
    predictor.predict(run.folder, **options)
    predictor.predict(run.folder / "a" / "grey.jpg")
    assert terminal.getvalue() == ""


def test_nothing_is_shown_where_there_is_no_terminal(run, predictor, monkeypatch):
    out = shown_on(monkeypatch, False)
    predictor.predict(run.folder)
    assert out.getvalue() == ""


def test_the_bar_is_closed_when_an_image_fails(run, predictor, terminal, tmp_path):
    files = [run.folder / "a" / "grey.jpg"] * 8 + [tmp_path / "no.jpg"]
    with pytest.raises(ImageError):
        predictor.predict(files)
    assert terminal.getvalue().rstrip(" \n").endswith("\r")


def test_it_is_refreshed_ten_times_a_second_at_most(terminal):
    bar = progress_bar.bar(10_000, True)
    clock = [bar._time()]
    bar._time = lambda: clock[0]
    bar.last_print_t = bar.start_t = clock[0]
    shown = []
    bar.refresh = lambda *a, **k: shown.append(clock[0])
    for _ in range(10_000):
        clock[0] += 0.001
        bar.update(1)
    bar.close()
    assert 1 <= len(shown) <= 101, "in ten seconds"
