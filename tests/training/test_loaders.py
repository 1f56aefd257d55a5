"""Loaders of any kind behind one interface: what goes in, where a run continues, and what it says of it."""

import re

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from cvkit.callbacks import Checkpoint
from cvkit.data import ArrayDataset, Loader
from cvkit.errors import ArgumentError, CheckpointError, CvkitWarning, PreflightError
from cvkit.loading import ResumableLoader, StatefulLoader
from cvkit.training import Callback, evaluate, fit, load_checkpoint, loaders

BATCHES = 5


def batch_of(number):
    made = torch.Generator().manual_seed(number)
    return torch.randn(4, 3, generator=made), torch.randint(0, 2, (4,), generator=made)


class Samples(IterableDataset):
    """A dataset that can only be iterated, with a length or without."""

    def __init__(self, count=20):
        self.count = count

    def __iter__(self):
        return iter(
            [(inputs, target) for i in range(self.count // 4) for inputs, target in zip(*batch_of(i), strict=True)]
        )


class SizedSamples(Samples):
    def __len__(self):
        return self.count


class Own:
    """A user's own loader: shuffled by a generator of its own, with a background reader two batches ahead."""

    def __init__(self, length=BATCHES, after_end="nothing", extra=None):
        self.length, self.after_end, self.extra = length, after_end, extra
        self.seed, self.taken = 0, 0
        self.loaded = []
        self._restored = False

    def __len__(self):
        return self.length

    def __iter__(self):
        if (self._restored and self.taken == self.length and self.after_end == "next") or not self._restored:
            self.seed, self.taken = self.seed + 1, 0
        self._restored = False
        return self._given()

    def _given(self):
        order = torch.randperm(self.length, generator=torch.Generator().manual_seed(self.seed)).tolist()
        ahead = []
        while self.taken < self.length:
            while len(ahead) < 3 and self.taken + len(ahead) < self.length:
                number = order[self.taken + len(ahead)]
                self.loaded.append((self.seed, number))
                ahead.append(batch_of(100 * self.seed + number))
            self.taken += 1
            yield ahead.pop(0)

    def state_dict(self):
        return {"seed": self.seed, "taken": self.taken, **({"extra": self.extra} if self.extra is not None else {})}

    def load_state_dict(self, state):
        self.seed, self.taken, self._restored = state["seed"], state["taken"], True


class Unsized:
    """Batches without a length: five, over and over."""

    def __init__(self, count=5):
        self.count = count

    def __iter__(self):
        shift = int(torch.randint(0, 1000, ()))  # another pass has other batches
        return (batch_of(shift + i) for i in range(self.count))


class UnsizedStateful(Own):
    __len__ = None


class Sees(Callback):
    def __init__(self, stop_at=None):
        self.seen, self.stop_at = [], stop_at

    def on_batch_end(self, state):
        self.seen.append(round(float(state.batch[0].sum()), 4))
        if len(self.seen) == self.stop_at:
            state.request_stop("enough")


def run(train, directory=None, epochs=3, stop_at=None, resume=False, val=None, **kwargs):
    torch.manual_seed(7)
    model = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5), nn.Linear(4, 2))
    sees = Sees(stop_at)
    callbacks = [sees, *([Checkpoint(directory, monitor=None)] if directory else [])]
    options = {"seed": 5, "device": "cpu", "progress": False, "callbacks": callbacks, "resume": resume}
    result = fit(model, train, val, epochs=epochs, **(options | kwargs))
    return sees.seen, {name: value.clone() for name, value in model.state_dict().items()}, result


def same(one, other):
    return list(one) == list(other) and all(torch.equal(one[name], other[name]) for name in one)


def torch_loader(**kwargs):
    inputs, targets = (torch.cat(parts) for parts in zip(*(batch_of(i) for i in range(BATCHES)), strict=True))
    return DataLoader(TensorDataset(inputs, targets), batch_size=4, shuffle=True, **kwargs)


def test_each_kind_gets_its_adapter():
    own = Loader(ArrayDataset(torch.randn(8, 3), torch.zeros(8, dtype=torch.int64)), 4)
    assert isinstance(own, ResumableLoader)
    assert isinstance(Own(), StatefulLoader)
    kinds = [
        (own, loaders.Resumable),
        (torch_loader(), loaders.TorchLoader),
        (Own(), loaders.Stateful),
        ([1], loaders.Adapter),
    ]
    assert [type(loaders.adapt(loader)) for loader, _ in kinds] == [kind for _, kind in kinds]
    assert type(loaders.adapt(Unsized(), 3)) is loaders.Stream


@pytest.mark.parametrize("workers", [0, 1])
def test_a_torch_loader_over_a_sized_iterable_dataset_goes_in(workers):
    given = DataLoader(SizedSamples(), batch_size=4, num_workers=workers)
    seen, _, result = run(given, val=DataLoader(SizedSamples(8), batch_size=4), epochs=2)
    assert seen == [round(float(batch_of(i)[0].sum()), 4) for i in range(BATCHES)] * 2
    assert result.steps == 2 * BATCHES


@pytest.mark.parametrize("after_end", ["nothing", "next"])
@pytest.mark.parametrize("stop_at", [1, 3, 4, 5, 6, 10, 12])
def test_a_stateful_loader_continues_where_it_stood_and_loads_nothing_before(tmp_path, after_end, stop_at):
    whole, weights, _ = run(Own(after_end=after_end))
    first, _, _ = run(Own(after_end=after_end), tmp_path, stop_at=stop_at)
    again = Own(after_end=after_end)
    rest, resumed, _ = run(again, tmp_path, resume=True)
    assert first + rest == whole
    assert same(resumed, weights)
    epoch, batch = divmod(stop_at, BATCHES)
    here = [one for one in again.loaded[3:] if one[0] == epoch]  # the first three are preflight's look
    assert len(here) == BATCHES - batch, "nothing that was trained on before is loaded"


def test_a_stateful_loader_is_left_alone_by_a_look_and_by_find_lr():
    from cvkit.training import find_lr

    loader = Own()
    next(given := iter(loader))
    before = loader.state_dict()
    find_lr(nn.Linear(3, 2), loader, steps=12, device="cpu")
    assert loader.state_dict() == before
    del given


def test_a_state_that_no_file_can_hold_is_named(tmp_path):
    said = re.escape("training['loaders'][0]['state']['extra'] cannot go into a checkpoint\n  got: builtins.set")
    with pytest.raises(CheckpointError, match=f"^{said}"):
        run(Own(extra={1}), tmp_path, epochs=1)


def test_a_loader_without_a_state_is_loaded_again_and_the_run_says_so_once(tmp_path):
    whole, weights, _ = run(torch_loader())
    run(torch_loader(), tmp_path, stop_at=7)
    with pytest.warns(CvkitWarning) as said:
        rest, resumed, _ = run(torch_loader(), tmp_path, resume=True)
    assert (rest, same(resumed, weights)) == (whole[7:], True)
    assert len(said) == 1
    assert re.fullmatch(
        r"train \(DataLoader\) cannot be entered in the middle: the 2 batches before the place to continue from were loaded "
        r"again and left out, which took \d+\.\d s\. A cvkit\.data\.Loader, or a loader with state_dict\(\) and "
        r"load_state_dict\(\), continues there at once",
        str(said[0].message),
    )


def test_nothing_is_said_where_nothing_is_loaded_again(tmp_path, recwarn):
    batches = [batch_of(i) for i in range(BATCHES)]
    whole, weights, _ = run(batches)
    run(batches, tmp_path, stop_at=7)
    rest, resumed, _ = run(batches, tmp_path, resume=True)
    assert (rest, same(resumed, weights)) == (whole[7:], True)
    run(torch_loader(), tmp_path / "b", epochs=1)
    run(torch_loader(), tmp_path / "b", epochs=2, resume=True)
    assert not recwarn.list


def test_an_unsized_iterable_goes_on_through_the_epochs():
    torch.manual_seed(0)
    seen, _, result = run(Unsized(), epochs=4, steps_per_epoch=3, schedule="cosine")
    assert (len(seen), result.steps) == (12, 12)
    assert len(set(seen)) == 12, "each pass is another, and each batch of a pass comes once"
    fixed, _, _ = run(DataLoader(Samples(), batch_size=4), epochs=4, steps_per_epoch=3)
    assert fixed == ([round(float(batch_of(i)[0].sum()), 4) for i in range(BATCHES)] * 3)[:12]


@pytest.mark.filterwarnings("ignore:.*cannot be entered in the middle")
@pytest.mark.parametrize("stop_at", [1, 3, 4, 5, 7, 9, 10])
@pytest.mark.parametrize("kind", [Unsized, UnsizedStateful, lambda: DataLoader(Samples(), batch_size=4)])
def test_an_unsized_iterable_is_continued_bit_by_bit(tmp_path, kind, stop_at):
    whole, weights, _ = run(kind(), epochs=4, steps_per_epoch=3)
    run(kind(), tmp_path, epochs=4, steps_per_epoch=3, stop_at=stop_at)
    rest, resumed, _ = run(kind(), tmp_path, epochs=4, steps_per_epoch=3, resume=True)
    assert (rest, same(resumed, weights)) == (whole[stop_at:], True)


@pytest.mark.parametrize(("train", "steps", "message"), [
    (Unsized(), None, "train does not say how many batches it has\n  got: Unsized without a length\n  expected: a sized "
     "iterable: schedules and the time left are computed from it\n  fix: give it a __len__ that returns the number of "
     "batches; or tell fit: steps_per_epoch=1000"),
    (Unsized(), 0, "steps_per_epoch cannot be used\n  got: 0\n  expected: an integer of at least 1\n  fix: pass e.g. "
     "steps_per_epoch=1000"),
    ([batch_of(0)], 3, "steps_per_epoch is for a train without a length\n  got: steps_per_epoch=3, and list with 1 batches\n"
     "  expected: a loader that does not say how many batches it has\n  fix: leave steps_per_epoch out"),
])  # fmt: skip
def test_a_length_that_cannot_be_used_is_answered(train, steps, message):
    with pytest.raises(ArgumentError) as error:
        run(train, steps_per_epoch=steps)
    assert str(error.value) == message


class Text(torch.utils.data.Dataset):
    def __len__(self):
        return 4

    def __getitem__(self, index):
        return torch.zeros(3), ["cat", "dog"][index % 2]


def test_evaluate_answers_labels_that_are_text_as_fit_does():
    loader = DataLoader(Text(), batch_size=2)
    with pytest.raises(PreflightError) as by_fit:
        run(loader)
    with pytest.raises(PreflightError) as error:
        evaluate(nn.Linear(3, 2), loader, device="cpu")
    assert str(error.value) == str(by_fit.value).replace("train", "data")


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("stop_at", [2, 5, 8])
def test_torchdatas_loader_continues_bit_by_bit(tmp_path, workers, stop_at):
    found = pytest.importorskip("torchdata.stateful_dataloader")

    def made(seed=3):
        torch.manual_seed(seed)  # its sampler draws a seed when it is built
        return found.StatefulDataLoader(torch_loader().dataset, batch_size=4, shuffle=True, num_workers=workers)

    whole, weights, _ = run(made())
    first, _, _ = run(made(), tmp_path, stop_at=stop_at)
    rest, resumed, _ = run(made(seed=4), tmp_path, resume=True)
    assert first + rest == whole
    assert same(resumed, weights)
    assert load_checkpoint(tmp_path / "last.pt")["training"]["loaders"][0]["ended"]
