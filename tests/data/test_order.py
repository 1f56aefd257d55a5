"""Laws of the order: what each sample, batch, rank and position of an epoch gets, for any numbers."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cvkit.data import ArrayDataset, Loader
from cvkit.data.order import batches_of, epoch_order, share_of

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
