"""Decoded images kept in memory: fresh crops of the same images, in any number of threads, within a stated bound."""

import random
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from torchvision.transforms import v2

from cvkit import seeding
from cvkit.data import FolderDataset, Loader, split, write_shapes
from cvkit.data.datasets import files as reading
from cvkit.data.image_cache import ImageCache, estimate
from cvkit.errors import ArgumentError, DataError, ImageError
from cvkit.transforms import classification_eval, classification_train, small_image_train

MIB = 2**20
SIDE = 24
KEPT = 3 * SIDE * SIDE  # bytes of an image of the fixture, which no crop of 16 lets be smaller


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    return FolderDataset(write_shapes(tmp_path_factory.mktemp("data") / "shapes", per_class=6, size=SIDE))


@pytest.fixture
def reads(monkeypatch):
    """The names of the files that are decoded, as they come."""
    names = []
    lock = threading.Lock()
    original = reading.decode

    def counted(path, *arguments, **options):
        with lock:
            names.append(path)
        return original(path, *arguments, **options)

    monkeypatch.setattr(reading, "decode", counted)
    return names


@pytest.fixture
def free(monkeypatch):
    """Says how much memory is free."""

    def say(size):
        monkeypatch.setattr("cvkit.data.loader.free_memory", lambda: size)

    return say


def epoch(loader, number=0, start=0):
    loader.set_epoch(number)
    return [loader.finish(raw) for raw in loader.batches(start)]


def same(one, other):
    return len(one) == len(other) and all(
        torch.equal(a, b) for x, y in zip(one, other, strict=True) for a, b in zip(x, y, strict=True)
    )


def crops(**options):
    return classification_train(16, **options)


@pytest.mark.parametrize("cache", ["ram", "auto"])
def test_the_second_epoch_decodes_nothing_and_cuts_fresh_crops_bitwise_those_of_no_cache(shapes, reads, cache):
    kept, plain = (
        Loader(shapes, 4, transform=crops(), shuffle=True, workers=2 if cache else 0, cache=cache)
        for cache in (cache, None)
    )
    plain._makers.count = 0
    expected = [epoch(plain, number) for number in range(3)]
    reads.clear()
    first = epoch(kept, 0)
    assert len(reads) == 18
    reads.clear()
    later = [epoch(kept, number) for number in (1, 2)]
    assert reads == []
    assert same(first, expected[0])
    assert same(later[0], expected[1])
    assert same(later[1], expected[2])
    assert not same(later[0], later[1])
    images = {bytes(image.numpy().tobytes()) for inputs, _ in later[0] for image in inputs}
    assert not images & {bytes(image.numpy().tobytes()) for inputs, _ in later[1] for image in inputs}
    assert kept.cached_bytes == 18 * KEPT


@pytest.mark.parametrize("threads", [0, 1, 2, 3])
@pytest.mark.parametrize("transform", [crops(), crops(brightness=0.4, erase=0.5, cutmix=1.0, num_classes=3)])
def test_any_number_of_threads_makes_the_same_batches_entered_anywhere(shapes, threads, transform):
    alone = Loader(shapes, 4, transform=transform, shuffle=True, seed=4, workers=0, cache=None)
    loader = Loader(shapes, 4, transform=transform, shuffle=True, seed=4, workers=threads, cache="ram")
    assert loader.workers == threads
    assert same(epoch(loader, 1, start=2), epoch(alone, 1, start=2))
    assert same(epoch(loader, 1), epoch(alone, 1))
    assert same(epoch(loader, 0), epoch(alone, 0))
    iterator = iter(loader)
    next(iterator)
    again = Loader(shapes, 4, transform=transform, shuffle=True, seed=4, workers=3 - threads, cache="ram")
    again.load_state_dict(loader.state_dict())
    assert same(list(again), list(iterator))


def test_images_larger_than_any_crop_can_use_are_kept_smaller(tmp_path):
    (tmp_path / "a").mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (160, 200, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "a" / "x.png")
    transform = classification_train(16, scale=(0.5, 1.0))
    loader = Loader(FolderDataset(tmp_path), 1, transform=transform, cache="ram")
    first, second = (epoch(loader, number)[0][0] for number in (0, 1))
    wide, high = transform.most(200, 160)
    assert loader.cached_bytes == wide * high * 3 < 200 * 160 * 3 / 4
    assert not torch.equal(first, second)


def test_without_a_cache_nothing_is_kept(shapes, reads):
    loader = Loader(shapes, 4, transform=crops(), cache=None, workers=0)
    for _ in range(2):
        epoch(loader)
    assert len(reads) == 36
    assert loader.cached_bytes == 0


def test_auto_keeps_images_that_take_at_most_a_quarter_of_the_free_memory(shapes, free):
    needed = estimate(shapes, crops())
    assert needed == 18 * KEPT
    free(4 * needed)
    assert Loader(shapes, 4, transform=crops())._fetcher.image_cache.limit == needed
    free(4 * needed - 4)
    assert Loader(shapes, 4, transform=crops())._fetcher.image_cache is None
    free(None)
    assert Loader(shapes, 4, transform=crops())._fetcher.image_cache is None


@pytest.mark.parametrize("stage", [crops(), small_image_train(SIDE)], ids=["images", "samples"])
@pytest.mark.parametrize("share", [0.1, 0.5, 1, 2, 3.9, 4, 5, 8, 100])
def test_auto_never_takes_more_than_a_quarter_of_the_free_memory(shapes, free, stage, share):
    size = int(18 * KEPT * share)
    free(size)
    loader = Loader(shapes, 4, transform=stage, workers=0)
    for number in range(2):
        epoch(loader, number)
        assert loader.cached_bytes <= size / 4
    assert bool(loader.cached_bytes) == (share > 4 or (share == 4 and stage.sample_random))


def test_images_that_do_not_fit_are_told_before_one_is_decoded(shapes, free, reads):
    free(int(18 * KEPT / 0.8) - 10)
    with pytest.raises(DataError) as caught:
        Loader(shapes, 4, transform=crops(), cache="ram")
    assert reads == []
    free(1000 * MIB)
    assert Loader(shapes, 4, transform=crops(), cache="ram").cached_bytes == 0
    lines = str(caught.value).split("\n")
    assert lines[0] == "the cache would not fit into memory"
    assert lines[2].endswith("which is 80% of what is free")
    assert lines[3] == '  fix: pass cache="auto" or None, or smaller images'


def test_the_size_of_what_does_not_fit_is_told(shapes, free, monkeypatch):
    monkeypatch.setattr(FolderDataset, "size", lambda self, index: (8000, 4000))
    free(100 * MIB)
    with pytest.raises(DataError) as caught:
        Loader(shapes, 1, transform=classification_train(1000, scale=(1.0, 1.0), ratio=(1.0, 1.0)), cache="ram")
    assert str(caught.value) == (
        f"the cache would not fit into memory\n  got: about {18 * 2000 * 1000 * 3 / MIB:,.0f} MiB of samples\n"
        "  expected: at most 80 MiB, which is 80% of what is free\n"
        '  fix: pass cache="auto" or None, or smaller images'
    )


def test_images_for_which_there_is_no_room_after_all_are_decoded_each_time(shapes, free, reads, monkeypatch):
    monkeypatch.setattr("cvkit.data.loader.estimate", lambda dataset, transform: 10)  # too small
    free(4 * (5 * KEPT + 100))
    loader, plain = (
        Loader(shapes, 4, transform=crops(), shuffle=True, cache=cache, workers=2) for cache in ("auto", None)
    )
    plain._makers.count = 0
    for number in range(3):
        assert same(epoch(loader, number), epoch(plain, number))
        assert loader.cached_bytes == 5 * KEPT <= loader._fetcher.image_cache.limit
        assert not loader._fetcher.image_cache.complete
    reads.clear()
    epoch(loader, 3)
    assert len(reads) == 18 - 5


def test_two_threads_that_decode_one_image_count_it_once():
    images = ImageCache(2, 100)
    for _ in range(2):
        images.put(0, torch.zeros(3, 4, 4, dtype=torch.uint8), 1)
    assert (images.bytes, images.kept, images.complete) == (48, 1, False)
    images.put(1, torch.zeros(3, 5, 5, dtype=torch.uint8), torch.zeros(3, dtype=torch.int64))  # 75 + 24
    assert images.get(1) is None
    images.put(1, torch.zeros(1, 4, 4, dtype=torch.uint8), torch.zeros(3, dtype=torch.int64))
    assert (images.bytes, images.kept, images.complete) == (88, 2, True)


def test_samples_drawn_often_are_kept_once(shapes):
    weights = [0.0] * 17 + [1.0]
    loader = Loader(shapes, 4, transform=crops(), weights=weights, cache="ram", workers=3)
    batches = epoch(loader)
    assert loader.cached_bytes == KEPT
    assert same(batches, epoch(Loader(shapes, 4, transform=crops(), weights=weights, cache=None, workers=0)))


def test_threads_leave_the_main_threads_and_any_later_threads_numbers_of_cores_alone(shapes):
    before, inside = torch.get_num_threads(), []
    torch.set_num_threads(3)
    try:
        loader = Loader(shapes, 4, transform=crops(), cache="ram", workers=2)
        list(loader)
        assert torch.get_num_threads() == 3
        pool = loader._makers._pool
        inside.extend(pool.submit(torch.get_num_threads).result() for _ in range(4))
        assert set(inside) == {1}
        later = threading.Thread(target=lambda: inside.append(torch.get_num_threads()))
        later.start()
        later.join()
        assert inside[-1] == 3
    finally:
        torch.set_num_threads(before)


def test_no_global_generator_is_touched(shapes):
    before = seeding.capture()
    for transform in (crops(), crops(cutmix=1.0, num_classes=3), crops(augment="trivialaugment")):
        loader = Loader(shapes, 4, transform=transform, shuffle=True, cache="ram", workers=2)
        list(loader)
        iterator = iter(loader)
        next(iterator)
        iterator.close()
        loader.peek()
    after = seeding.capture()
    assert before["python"] == after["python"]
    assert torch.equal(before["numpy"][1], after["numpy"][1])
    assert torch.equal(before["torch"], after["torch"])


def test_an_iteration_that_is_left_leaves_nothing_running(shapes):
    plain = epoch(Loader(shapes, 1, transform=crops(), shuffle=True, cache=None, workers=0))
    loader = Loader(shapes, 1, transform=crops(), shuffle=True, cache="ram", workers=2)
    for _ in range(5):
        left = loader.batches()
        next(left)
        left.close()
    assert same(epoch(loader), plain)
    pool = loader._makers._pool
    assert pool._work_queue.empty()
    threads = list(pool._threads)
    assert len(threads) == 2
    loader._makers.close()
    for thread in threads:
        thread.join(10)
    assert not any(thread.is_alive() for thread in threads)
    assert same(epoch(loader), plain)  # with new ones


def test_iterations_inside_one_another_get_their_own_batches(shapes):
    loader = Loader(shapes, 4, transform=crops(), shuffle=True, cache="ram", workers=2)
    plain = epoch(Loader(shapes, 4, transform=crops(), shuffle=True, cache=None, workers=0))
    outer = []
    for raw in loader.batches():
        outer.append(loader.finish(raw))
        assert same(epoch(loader), plain)
    assert same(outer, plain)


def _damaged(root):
    write_shapes(root, 4, SIDE)
    whole = (root / "square" / "0001.png").read_bytes()
    (root / "square" / "0001.png").write_bytes(whole[: len(whole) // 2])
    return root


@pytest.mark.parametrize("threads", [0, 1, 2])
def test_an_error_in_a_thread_names_file_and_index_and_the_loader_goes_on_to_work(tmp_path, threads):
    root = _damaged(tmp_path)
    loader = Loader(FolderDataset(root), 3, transform=crops(), cache="ram", workers=threads)
    with pytest.raises(ImageError, match=r"^sample 5: cannot decode the image .*square.0001\.png"):
        epoch(loader)
    write_shapes(root, 4, SIDE)
    assert len(epoch(loader)) == 4


@pytest.mark.parametrize("threads", [0, 2])
def test_what_is_left_out_is_counted_and_the_rest_is_kept(tmp_path, threads, reads):
    data = FolderDataset(_damaged(tmp_path), on_error="skip")
    loader = Loader(data, 3, transform=crops(), cache="ram", workers=threads)
    plain = Loader(data, 3, transform=crops(), cache=None, workers=0)
    for number in (0, 1):
        batches = epoch(loader, number)
        assert same(batches, epoch(plain, number))
        assert [len(targets) for _, targets in batches] == [3, 2, 3, 3]
    assert list(loader.skipped) == [5]
    assert "0001.png" in loader.skipped[5]
    assert loader.cached_bytes == 11 * KEPT
    reads.clear()
    epoch(loader, 2)
    assert [Path(name).name for name in reads] == ["0001.png"]


@pytest.mark.parametrize("threads", [0, 2])
def test_a_batch_stage_that_fails_in_a_thread_fails_as_it_does_without(shapes, threads):
    transform = crops(cutmix=1.0, num_classes=2)  # there are three
    loader = Loader(shapes, 18, transform=transform, cache="ram", workers=threads)
    with pytest.raises(ArgumentError, match="class"):
        list(loader)


def test_a_transform_of_another_house_may_change_in_place_what_it_is_given(shapes, reads):
    def spoiling(image):
        if random.random() < 0.5:
            image.paste((255, 0, 0), (0, 0, 12, 12))
        return v2.functional.pil_to_tensor(image)

    kept, plain = (
        Loader(shapes, 4, transform=spoiling, shuffle=True, cache=cache, workers=0) for cache in ("ram", None)
    )
    expected = [epoch(plain, number) for number in range(4)]
    reads.clear()
    for number in range(4):
        assert same(epoch(kept, number), expected[number])
    assert len(reads) == 18
    assert kept.cached_bytes == 18 * SIDE * SIDE * 4  # as Pillow holds them


def test_levels_of_16_bits_that_are_kept_stay_what_they_are(tmp_path):
    (tmp_path / "a").mkdir()
    levels = np.arange(64, dtype=np.uint16).reshape(8, 8) * 1000
    for name in ("x.png", "x.tiff"):
        Image.fromarray(levels).save(tmp_path / "a" / name)
    opened = torchvision.datasets.ImageFolder(tmp_path, loader=Image.open)

    def turned(image):
        return image if random.random() < 0.5 else image.transpose(Image.Transpose.ROTATE_180)

    kept, plain = (Loader(opened, 1, transform=turned, cache=cache, workers=0) for cache in ("ram", None))
    for number in range(4):
        assert same(epoch(kept, number), epoch(plain, number))


def test_a_part_of_a_data_set_is_kept_by_its_own_indices(shapes, reads):
    train, val = split(shapes, 0.5)
    for part in (train, val):
        loader, plain = (Loader(part, 4, transform=crops(), cache=cache, workers=0) for cache in ("ram", None))
        expected = [epoch(plain, number) for number in (0, 1)]
        reads.clear()
        assert same(epoch(loader, 0), expected[0])
        assert same(epoch(loader, 1), expected[1])
        assert len(reads) == 9
        assert loader.cached_bytes == 9 * KEPT


def test_what_may_differ_each_time_is_not_kept_and_asked_for_it_is_told(shapes):
    class Turning(FolderDataset):
        def __getitem__(self, index):
            image, target = super().__getitem__(index)
            return image.rotate(random.randrange(360)), target

    data = Turning(shapes.root)
    assert Loader(data, 4, transform=crops())._fetcher.image_cache is None
    with pytest.raises(ArgumentError) as caught:
        Loader(data, 4, transform=crops(), cache="ram")
    assert str(caught.value) == (
        'cache="ram" cannot keep what is different each time\n'
        "  got: a dataset that may give another sample each time (Turning)\n"
        "  expected: one that is known to give the same\n"
        '  fix: give its random transform to the loader instead, or pass cache="auto" or None'
    )


def test_a_torchvision_folder_is_kept_where_asked_and_cut_as_a_folder_of_ours(shapes):
    theirs = torchvision.datasets.ImageFolder(shapes.root)
    ours, kept = (Loader(data, 4, transform=crops(), shuffle=True, cache="ram") for data in (shapes, theirs))
    for number in (0, 1):
        assert same(epoch(ours, number), epoch(kept, number))
    assert kept.cached_bytes == 18 * KEPT


def test_where_the_stage_is_the_same_each_time_its_results_are_kept_instead(shapes):
    loader = Loader(shapes, 4, transform=classification_eval(16), cache="ram", workers=0)
    epoch(loader)
    assert loader._fetcher.image_cache is None
    assert loader.cached_bytes == 18 * (3 * 16 * 16 + 8)
