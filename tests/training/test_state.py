"""What the state tells of a run: samples that were left out."""

import pytest
import torch
from resumed_runs import Keeps, network

from cvkit.callbacks import Checkpoint
from cvkit.errors import CvkitWarning
from cvkit.training import fit, load_checkpoint, save_checkpoint


class Holes:
    """A loader of batches of which some samples cannot be read, as one with ``on_error="skip"`` tells of it."""

    def __init__(self, holes):
        self.holes, self.skipped = holes, {}

    def __len__(self):
        return 4

    def __iter__(self):
        for place in range(4):
            if place in self.holes:
                self.skipped[place] = f"image {place}.png cannot be decoded\n  got: 3 bytes"
            yield torch.ones(2, 4) * place, torch.tensor([0, 1])


@pytest.mark.parametrize("same", [False, True])
@pytest.mark.parametrize("stop", [1, 3, 4, 6])
def test_samples_that_were_left_out_are_counted_over_the_whole_run(tmp_path, stop, same):
    def run(directory, stop=None):
        loader = Holes({0, 3})
        torch.manual_seed(0)
        ends = Keeps("on_batch_end", lambda state, calls: state.request_stop("enough") if state.step == stop else None)
        return fit(
            network(), loader, loader if same else Holes({2}), epochs=2, resume=True, progress=False, preflight=False,
            device="cpu", callbacks=[ends, Checkpoint(directory)],
        )  # fmt: skip

    message = r"samples were left out because they cannot be read, e.g. image \d.png cannot be decoded$"
    with pytest.warns(CvkitWarning, match=f"^{2 if same else 3} {message}"):
        assert run(tmp_path / "a").skipped == (2 if same else 3)
    with pytest.warns(CvkitWarning, match=message):
        run(tmp_path / "b", stop)
    with pytest.warns(CvkitWarning, match=f"^{2 if same else 3} {message}"):
        assert run(tmp_path / "b").skipped == (2 if same else 3)


def test_a_run_that_was_over_when_it_is_resumed_still_tells_what_was_left_out(tmp_path):
    def run():
        return fit(
            network(), Holes({1}), epochs=1, resume=True, progress=False, preflight=False, device="cpu",
            callbacks=[Checkpoint(tmp_path, monitor=None)],
        ).skipped  # fmt: skip

    for _ in range(2):
        with pytest.warns(CvkitWarning, match="^1 samples were left out"):
            assert run() == 1


def test_a_file_that_does_not_tell_what_was_left_out_is_continued(tmp_path):
    def run(epochs, holes):
        return fit(
            network(), Holes(holes), epochs=epochs, resume=True, progress=False, preflight=False, device="cpu",
            callbacks=[Checkpoint(tmp_path, monitor=None)],
        ).skipped  # fmt: skip

    run(1, ())
    content = load_checkpoint(tmp_path / "last.pt")
    del content["training"]["skipped"]
    save_checkpoint(tmp_path / "last.pt", content)
    assert run(2, ()) == 0
