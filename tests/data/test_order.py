"""Laws of the order: what each sample, batch, rank and position of an epoch gets, for any numbers."""

import itertools
import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cvkit import seeding
from cvkit.data import ArrayDataset, Loader
from cvkit.data.order import batches_of, epoch_order, share_of
from cvkit.errors import ArgumentError

counts = st.integers(1, 300)
sizes = st.integers(1, 64)
ranks_of = st.integers(1, 17)
seeds = st.integers(-(2**63), 2**63)
epochs = st.integers(0, 10**6)


@given(counts, sizes, ranks_of, seeds, epochs, st.booleans())
def test_each_sample_is_seen_exactly_once_an_epoch_over_all_ranks(count, size, ranks, seed, epoch, shuffle):
    parts = batches_of(epoch_order(count, seed, epoch, shuffle=shuffle), size, drop_last=False)
    seen = [share_of(part, rank, ranks) for rank in range(ranks) for part in parts]
    assert sorted(torch.cat(seen).tolist()) == list(range(count))


@given(counts, sizes, ranks_of, seeds, epochs, st.data())
def test_an_epoch_entered_anywhere_by_any_number_of_ranks_gives_what_is_left_of_it(
    count, size, ranks, seed, epoch, data
):
    parts = batches_of(epoch_order(count, seed, epoch, shuffle=True), size, drop_last=False)
    start = data.draw(st.integers(0, len(parts)))
    before = torch.cat([*parts[:start], torch.empty(0, dtype=torch.long)])
    again = batches_of(epoch_order(count, seed, epoch, shuffle=True), size, drop_last=False)[start:]
    after = [share_of(part, rank, ranks) for part in again for rank in range(ranks)]
    assert sorted([*before.tolist(), *(one for part in after for one in part.tolist())]) == list(range(count))


@given(st.integers(0, 500), ranks_of)
def test_the_shares_of_all_ranks_one_after_the_other_are_the_batch_and_differ_by_one_at_most(length, ranks):
    batch = torch.randperm(length, generator=torch.Generator().manual_seed(length))
    shares = [share_of(batch, rank, ranks) for rank in range(ranks)]
    assert torch.equal(torch.cat(shares), batch)
    lengths = [len(share) for share in shares]
    assert set(lengths) <= {length // ranks, length // ranks + 1}
    assert share_of(batch, 0, 1).tolist() == batch.tolist()


@given(counts, sizes, seeds, epochs)
def test_without_the_short_batch_every_batch_is_full_and_the_rest_is_as_with_it(count, size, seed, epoch):
    order = epoch_order(count, seed, epoch, shuffle=True)
    every, full = (batches_of(order, size, drop_last=drop) for drop in (False, True))
    assert [part.tolist() for part in full] == [part.tolist() for part in every if len(part) == size]


@given(counts, seeds, epochs)
def test_unshuffled_the_order_is_the_data_sets_own(count, seed, epoch):
    assert torch.equal(epoch_order(count, seed, epoch, shuffle=False), torch.arange(count))


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=60).filter(any), seeds, epochs, st.booleans())
def test_weighted_samples_fill_an_epoch_repeat_and_never_are_of_weight_zero(weights, seed, epoch, shuffle):
    given_weights = torch.tensor(weights, dtype=torch.float64)
    order = epoch_order(len(weights), seed, epoch, shuffle=shuffle, weights=given_weights)
    assert order.shape == (len(weights),)
    assert bool((given_weights[order] > 0).all())
    assert torch.equal(
        order, epoch_order(len(weights), seed, epoch, shuffle=not shuffle, weights=given_weights.clone())
    )


@given(st.lists(st.integers(0, 4), min_size=2, max_size=40))
@settings(max_examples=30)
def test_balanced_weights_give_each_class_that_is_there_the_same_share(targets):
    loader = Loader(
        ArrayDataset(np.zeros((len(targets), 2), np.float32), targets, classes=list("abcde")), 1, weights="balanced"
    )
    shares = torch.zeros(5, dtype=torch.float64).index_add_(0, torch.tensor(targets), loader.weights)
    assert torch.allclose(shares[shares > 0], torch.ones(1, dtype=torch.float64))
    assert int((shares > 0).sum()) == len(set(targets))


def test_balanced_draws_come_out_balanced():
    targets = torch.tensor([0] * 90 + [1] * 9 + [2])
    loader = Loader(ArrayDataset(torch.zeros(100, 1), targets), 100, weights="balanced")
    drawn = torch.cat([batch[1] for epoch in range(60) for batch in [next(iter(_at(loader, epoch)))]])
    share = torch.bincount(drawn, minlength=3) / len(drawn)
    assert float((share - 1 / 3).abs().max()) < 0.03  # four standard deviations of 6,000 draws are 0.024


def _at(loader, epoch):
    loader.set_epoch(epoch)
    return loader


@given(st.integers(1, 60), st.integers(1, 20), st.integers(0, 40), st.integers(0, 3), st.booleans())
@settings(max_examples=40)
def test_a_loader_left_anywhere_and_loaded_elsewhere_sees_each_sample_once(count, size, left_at, epoch, drop_last):
    size = min(size, count)
    data = ArrayDataset(torch.arange(count, dtype=torch.float32)[:, None], torch.arange(count))

    def made():
        return Loader(data, size, shuffle=True, drop_last=drop_last, seed=5)

    first = _at(made(), epoch)
    seen = [one for _, targets in itertools.islice(first, left_at) for one in targets.tolist()]
    second = made()
    second.load_state_dict(first.state_dict())
    if second.epoch == epoch:
        seen.extend(one for _, targets in second for one in targets.tolist())
    assert len(seen) == len(set(seen)) == (count // size * size if drop_last else count)


@pytest.mark.parametrize(("rank", "expected"), [(0, []), (1, [7]), (2, []), (3, [8])])
def test_a_batch_with_fewer_samples_than_ranks_leaves_some_without(rank, expected):
    assert share_of(torch.tensor([7, 8]), rank, 4).tolist() == expected


# --- orders that are computed

KINDS = ["computed", "blocks"]
COMPUTED = [511, 782, 978, 8, 600, 850, 59, 503]
BLOCKS = [375, 516, 593, 483, 458, 457, 454, 424]


def computed(count, seed=0, epoch=0, kind="computed", blocks=None, window=3):
    return epoch_order(count, seed, epoch, shuffle=kind, blocks=blocks, window=window)


def block_ends(lengths):
    return np.cumsum(np.asarray(lengths, dtype=np.int64))


@given(st.integers(1, 3_000), seeds, epochs)
def test_a_computed_order_is_a_permutation(count, seed, epoch):
    order = computed(count, seed, epoch)
    assert sorted(order[:].tolist()) == list(range(count))
    assert order[:].tolist() == computed(count, seed, epoch)[:].tolist()


@given(st.lists(st.integers(1, 40), min_size=1, max_size=30), st.integers(1, 40), seeds, epochs)
def test_an_order_by_blocks_is_a_permutation_that_ends_each_window_before_the_next(lengths, window, seed, epoch):
    ends = block_ends(lengths)
    order = computed(int(ends[-1]), seed, epoch, "blocks", ends, window)[:].numpy()
    assert sorted(order.tolist()) == list(range(int(ends[-1])))
    blocks, start = np.searchsorted(ends, order, side="right"), 0
    for left in range(len(lengths), 0, -window):
        mixed = set()
        stop = start
        while len(mixed) < min(window, left) or stop - start < sum(lengths[block] for block in mixed):
            mixed.add(int(blocks[stop]))
            stop += 1
        assert (len(mixed), stop - start) == (min(window, left), sum(lengths[block] for block in mixed))
        start = stop
    assert start == len(order)


@given(
    st.sampled_from(KINDS), st.integers(1, 3_000), st.integers(0, 3_000), st.integers(0, 300), sizes, seeds, st.data()
)
def test_any_part_of_a_computed_order_is_that_part_of_the_whole(kind, count, start, length, size, seed, data):
    ends = block_ends([7] * (count // 7) + [count % 7 or 7])[: -(-count // 7)].clip(max=count)
    order = computed(count, seed, 1, kind, ends)
    whole = order[:].tolist()
    assert order[start : start + length].tolist() == whole[start : start + length]
    batches = batches_of(order, size, drop_last=False)
    assert [one for part in batches for one in part.tolist()] == whole
    place = data.draw(st.integers(0, len(batches) - 1))
    assert batches[place].tolist() == whole[place * size : (place + 1) * size]
    assert [part.tolist() for part in batches[place:]] == [part.tolist() for part in list(batches)[place:]]


def test_the_order_of_ordinary_datasets_is_what_it_always_was():
    known = torch.randperm(1_000, generator=torch.Generator().manual_seed(seeding.derive(5, "order", 2)))
    assert torch.equal(epoch_order(1_000, 5, 2, shuffle=True), known)


def test_computed_orders_are_what_they_always_were():
    # a checkpoint relies on them: they may never change
    assert computed(1_000, 5, 2)[:8].tolist() == COMPUTED
    assert computed(1_000, 5, 2, "blocks", block_ends([100] * 10))[:8].tolist() == BLOCKS


@pytest.mark.parametrize("kind", KINDS)
def test_a_billion_samples_take_no_memory_and_begin_anywhere(kind):
    count = 10**9
    tracemalloc.start()
    try:
        order = computed(count, 1, 0, kind, np.arange(10**5, count + 1, 10**5))
        batches = batches_of(order, 256, drop_last=False)
        parts = [batches[place] for place in (0, 2_000_000, len(batches) - 1)]
        parts += list(itertools.islice(iter(batches[3_000_000:]), 100))
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    seen = torch.cat(parts)
    assert len(set(seen.tolist())) == len(seen)
    assert 0 <= int(seen.min()) <= int(seen.max()) < count
    assert most < 8_000_000


def test_a_loader_of_a_billion_samples_is_entered_anywhere():
    loader = Loader(Counted(10**9), 128, shuffle=True, workers=0)
    assert len(loader) == -(-(10**9) // 128)
    loader.load_state_dict({"seed": 0, "epoch": 3, "batch": 7_000_000})
    tracemalloc.start()
    try:
        inputs, targets = next(iter(loader))
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (
        inputs[:, 0].tolist() == targets.tolist() == computed(10**9, 0, 3)[7_000_000 * 128 : 7_000_001 * 128].tolist()
    )
    assert most < 8_000_000


class Counted:
    """As many samples as one likes; a sample is its number."""

    deterministic = True

    def __init__(self, count):
        self.count = count

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        return np.array([index], dtype=np.int64), index


def test_a_large_dataset_says_in_its_fingerprint_that_its_order_is_another():
    small, large = (Loader(Counted(count), 4, shuffle=True).fingerprint for count in (100, 2**24 + 1))
    assert small == Loader(Counted(100), 4, shuffle=True, window=3).fingerprint
    assert large == Loader(Counted(2**24 + 1), 4, shuffle="computed").fingerprint
    ways = [Loader(Counted(100), 4, shuffle=way).fingerprint for way in (False, True, "computed", "blocks")]
    ways.append(Loader(Counted(100), 4, shuffle="blocks", window=2).fingerprint)
    assert len(set(ways)) == 5


def test_a_shuffle_and_a_window_that_are_none_are_refused():
    with pytest.raises(
        ArgumentError, match=r"^unknown shuffle 'block'\n  expected: .*\n  fix: did you mean 'blocks'\?$"
    ):
        Loader(Counted(10), 4, shuffle="block")
    with pytest.raises(ArgumentError) as caught:
        Loader(Counted(10), 4, window=0)
    assert str(caught.value) == (
        "window cannot be used\n  got: 0\n  expected: an integer of blocks, 1 or more\n  fix: window=16"
    )


@pytest.mark.parametrize("workers", [0, 2])
def test_workers_serve_a_computed_order_epoch_after_epoch(workers):
    loader = Loader(Counted(50), 8, shuffle="blocks", window=2, workers=workers, cache=None, start_method="fork")
    for epoch in range(3):
        seen = [targets.tolist() for _, targets in loader]
        assert seen == [part.tolist() for part in _at(loader, epoch).order()]
        loader.set_epoch(epoch + 1)


# --- how good they are, beside torch.randperm


def permutations(kind, count, epochs):
    for epoch in range(epochs):
        if kind == "stored":
            yield epoch_order(count, 11, epoch, shuffle=True).numpy()
        else:
            yield computed(count, 11, epoch)[:].numpy()


@pytest.mark.parametrize("kind", ["stored", "computed"])
@pytest.mark.parametrize("count", [97, 512, 1_000])
def test_fixed_points_and_neighbours_come_as_often_as_by_chance(kind, count):
    epochs = 2_000
    fixed = after = 0
    for order in permutations(kind, count, epochs):
        fixed += int((order == np.arange(count)).sum())
        after += int((np.diff(order) == 1).sum())
    # both are about Poisson of mean 1 an epoch: five standard deviations
    assert abs(fixed - epochs) < 5 * epochs**0.5
    assert abs(after - epochs * (count - 1) / count) < 5 * epochs**0.5


@pytest.mark.parametrize("kind", ["stored", "computed"])
@pytest.mark.parametrize("count", [16, 23, 64])
def test_each_sample_is_at_each_place_equally_often(kind, count):
    epochs = 4_000
    table = np.zeros((count, count))
    pairs = np.zeros((count, count))
    for order in permutations(kind, count, epochs):
        table[np.arange(count), order] += 1
        pairs[order[0], order[1]] += 1
    expected = epochs / count
    chi = float(((table - expected) ** 2 / expected).sum())
    freedom = (count - 1) ** 2
    assert abs(chi - freedom) < 5 * (2 * freedom) ** 0.5
    together = epochs / (count * (count - 1))  # of the samples at the first two places
    away = ~np.eye(count, dtype=bool)
    chi = float(((pairs[away] - together) ** 2 / together).sum())
    freedom = count * (count - 1) - 1
    assert abs(chi - freedom) < 5 * (2 * freedom) ** 0.5


@pytest.mark.parametrize("kind", ["stored", "computed"])
def test_epochs_do_not_resemble_one_another(kind):
    orders = list(permutations(kind, 1_000, 40))
    ranks = np.corrcoef(np.stack([np.argsort(order) for order in orders]))
    others = ranks[~np.eye(len(orders), dtype=bool)]
    assert float(np.abs(others).max()) < 5 / 1_000**0.5
    assert abs(float(others.mean())) < 0.005
