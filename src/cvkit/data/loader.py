"""``Loader``: order, workers, cache and transform, to batches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from cvkit import seeding
from cvkit.calls import answered
from cvkit.data.datasets.arrays import in_memory
from cvkit.data.datasets.base import Dataset, class_names, fingerprint_of, is_deterministic, numbered_alike
from cvkit.data.datasets.columns import paired
from cvkit.data.datasets.labels import places_of
from cvkit.data.fetch import Fetched, Fetcher, TwoStage
from cvkit.data.image_cache import ImageCache, estimate
from cvkit.data.loader_arguments import check, check_processes, check_weights
from cvkit.data.order import Batches, Shuffle, batches_of, blocks_of, check_order, epoch_order, order_kind
from cvkit.data.prefetch import RawBatch, prefetched
from cvkit.data.sample_cache import AUTO_SHARE, MOST_SHARE, Cache, free_memory, too_large
from cvkit.data.shares import PartOf, Shares, rows_of
from cvkit.data.workers import (
    BatchProducer,
    Requests,
    StartMethod,
    Threads,
    Workers,
    choose_threads,
    choose_workers,
)
from cvkit.errors import ArgumentError

__all__ = ["Loader", "RawBatch"]

_NOTHING = torch.empty(0)
_CALLED = {
    "dataset": "data ds",
    "batch_size": "bs batchsize",
    "transform": "transforms preprocess augment",
    "workers": "num_workers n_workers",
    "start_method": "multiprocessing_context",
    "weights": "sampler sample_weights",
}


class Loader:
    """Batches of a dataset: ``(inputs, targets)``, ready for the model.

    The order of the samples is a pure function of (seed, epoch), the random numbers of a sample's transform of (seed, epoch,
    sample), those of a batch's of (seed, epoch, batch). So the batches are the same for any number of workers, cached or
    not, and after any resume; and no global random generator is touched.

    Iterated by hand it yields what ``fit`` sees, from the epoch's beginning, or after :meth:`load_state_dict` from where that
    stood; each complete iteration moves on to the next epoch.

    What is kept in memory: where the per-image stage gives the same each time, its results (``small_image_train`` and every
    ``…_eval`` preset: an epoch is then one gather a batch, and no worker runs). Where it cuts random frames
    (``classification_train``), the decoded images, no larger than the preset can use; threads cut fresh frames each epoch.
    Arrays in memory, also torchvision's MNIST and CIFAR, are used where they are.

    Args:
        dataset: Anything sized and indexable whose samples are ``(image or tensor, target)``; torchvision's datasets as
            they are, and map-style datasets of Hugging Face's ``datasets``, whose features say which column is the image and
            which the target.
        batch_size: Samples to a batch; the last one of an epoch may be smaller.
        transform: A preset, or any callable on one sample's image (a torchvision transform). Without one, images of
            one size become floats from 0 to 1.
        shuffle: Whether each epoch has a random order of its own. ``True`` keeps an epoch's order in memory up to 2**24
            samples, and above takes ``"computed"``: an order of which each part is computed when it is used, in constant memory
            for any number of samples. ``"blocks"`` brings the blocks of the dataset (its shards; else 1,024 samples in a row)
            into random order and mixes the samples of ``window`` blocks at a time, so that reading stays near one place of the
            disk; the samples within a block should not be sorted by class.
        drop_last: Whether a smaller last batch is left out.
        workers: Processes that load; threads of this process where images are kept in memory. ``"auto"`` takes some where
            many files are to be decoded.
        cache: ``"ram"`` keeps what is said above, in at most 80 % of the free memory, or says that it does not fit;
            ``"device"`` keeps samples on the device, where their per-image stage gives the same each time; ``"auto"`` keeps
            them in memory if all take at most a quarter of what is free, and on a GPU if they take at most a quarter of what
            is free there; ``None`` keeps nothing.
        seed: Seed of order and randomness.
        classes: The class names in the order of their numbers, where the dataset gives labels as text: ``(image, "cat")``.
            Datasets that have ``classes`` of their own need none.
        weights: Relative frequency of each sample, or ``"balanced"`` for the same of each class; drawn with replacement,
            whatever ``shuffle`` says; for at most 2**24 samples.
        window: How many blocks ``shuffle="blocks"`` mixes at a time.
        timeout: How many seconds a worker may take for one batch.
        start_method: How workers start: ``"fork"``, ``"spawn"``, ``"forkserver"``; ``"auto"`` takes what the script has set by
            ``multiprocessing.set_start_method``, else fork on Linux and the system's own way elsewhere.

    Attributes:
        skipped: The message of each sample that was left out (``on_error="skip"``), by index.
        given_classes: The class names that labels are numbered by, or ``None`` where none were given.

    Raises:
        ArgumentError: A value that cannot be used, other ``classes`` than the dataset's own, or no batch at all.
        DataError: ``cache="ram"`` for more than fits; a torch ``ConcatDataset`` whose parts number their classes differently.
    """

    @answered(renamed=_CALLED, name="Loader")
    def __init__(
        self,
        dataset: Dataset,
        batch_size: int,
        *,
        transform: Any = None,
        shuffle: Shuffle = False,
        drop_last: bool = False,
        workers: int | Literal["auto"] = "auto",
        cache: Literal["auto", "ram", "device"] | None = "auto",
        seed: int = 0,
        classes: Sequence[str] | None = None,
        weights: Sequence[float] | Tensor | Literal["balanced"] | None = None,
        window: int = 16,
        timeout: float = 300.0,
        start_method: StartMethod = "auto",
    ) -> None:
        check(dataset, batch_size, drop_last, workers, cache, transform, seed)
        check_processes(timeout, start_method)
        check_order(shuffle, window)
        dataset = paired(numbered_alike(dataset))
        self.dataset: Any = dataset
        self.batch_size = batch_size
        self.transform = transform
        self.shuffle = shuffle
        self.window = window
        self.drop_last = drop_last
        self.seed = seed
        self.weights = check_weights(weights, dataset)
        self.skipped: dict[int, str] = {}
        self.epoch = 0
        self._position = 0
        self._start = 0
        self._asked = cache
        self.given_classes = class_names(classes) if classes is not None else None
        places = places_of(self.given_classes, dataset) if self.given_classes is not None else None
        self._fetcher = Fetcher(dataset, transform, seed, places)
        self._cache = self._choose_cache(cache)
        if self._cache is None:
            self._fetcher.image_cache = self._choose_image_cache(cache, workers)
        self._makers: BatchProducer
        if self._fetcher.image_cache is not None:
            threads = choose_threads() if workers == "auto" else workers
            self._makers = Threads(self._fetcher, threads if self._fetcher.threads else 0)
        else:
            count = choose_workers(dataset) if workers == "auto" else workers
            self._makers = Workers(self._fetcher, count, timeout, start_method)

    def _choose_cache(self, cache: str | None) -> Cache | None:
        """Returns where the per-image stage's results are kept, if they are."""
        if cache is None:
            return None
        held = in_memory(self.dataset) if self.given_classes is None else None  # the fetcher numbers labels
        if held is not None and self._passes(held[0]):
            return Cache.of(*held)
        if self._fetcher.random:
            if cache == "device":
                raise ArgumentError(
                    'cache="device" keeps what is the same each time',
                    got="a per-image stage that draws random numbers, or may",
                    expected="a deterministic one, e.g. small_image_train or any …_eval preset",
                    fix='pass cache="auto" or "ram"',
                )
            return None
        limit = _limit(cache)
        return Cache(len(self.dataset), limit, asked=cache != "auto") if cache != "auto" or limit is not None else None

    def _passes(self, images: Tensor) -> bool:
        """Whether the per-image stage leaves arrays in memory as they are."""
        if self.transform is None or images.ndim != 4 or images.dtype != torch.uint8:
            return self.transform is None
        return bool(hasattr(self.transform, "passes") and self.transform.passes(*images.shape[1:]))

    def _choose_image_cache(self, cache: str | None, workers: int | str) -> ImageCache | None:
        """Returns where decoded images are kept, if they are."""
        if cache is None or not is_deterministic(self.dataset):
            if cache == "ram":
                raise ArgumentError(
                    'cache="ram" cannot keep what is different each time',
                    got=f"a dataset that may give another sample each time ({type(self.dataset).__name__})",
                    expected="one that is known to give the same",
                    fix='give its random transform to the loader instead, or pass cache="auto" or None',
                )
            return None
        limit, size = _limit(cache), estimate(self.dataset, self.transform)
        if cache == "ram":
            if limit is not None and size is not None and size > limit:
                raise too_large(size, limit)
            return ImageCache(len(self.dataset), limit if limit is not None else 2**62)
        fits = limit is not None and size is not None and size <= limit
        return ImageCache(len(self.dataset), limit) if fits and limit is not None and self._fetcher.threads else None

    @property
    def cached_bytes(self) -> int:
        """What is kept in memory now, in bytes; arrays that were there anyway included."""
        kept = self._fetcher.image_cache
        return self._cache.bytes if self._cache is not None else kept.bytes if kept is not None else 0

    @property
    def workers(self) -> int:
        """The processes that load; 0 for this one."""
        return self._makers.count

    @property
    def classes(self) -> list[str] | None:
        """The class names: those given, else the dataset's, where it has them."""
        classes = self.given_classes if self.given_classes is not None else getattr(self.dataset, "classes", None)
        return [str(name) for name in classes] if classes is not None else None

    @property
    def fingerprint(self) -> str:
        """A hash of the dataset and of what decides the order."""
        data = getattr(self.dataset, "fingerprint", None) or (type(self.dataset).__name__, len(self.dataset))
        weights = self.weights.tolist() if self.weights is not None else None
        names = [self.given_classes] if self.given_classes is not None else []
        kind = order_kind(self.shuffle, len(self.dataset))
        order: Any = (kind, self.window, fingerprint_of(blocks_of(self.dataset))) if kind == "blocks" else kind
        return fingerprint_of(data, self.batch_size, order, self.drop_last, self.seed, weights, *names)

    def __len__(self) -> int:
        count = len(self.dataset)
        return count // self.batch_size if self.drop_last else -(-count // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        epoch = self.epoch
        self._position, self._start = self._start, 0
        for raw in self.batches(self._position):
            if self.epoch == epoch:  # unless set_epoch has said otherwise meanwhile
                self._position = raw.place + 1
            inputs, targets = self.finish(raw)
            yield _unshared(inputs), _unshared(targets)
        if self.epoch == epoch:
            self.set_epoch(epoch + 1)

    def set_epoch(self, epoch: int) -> None:
        """Goes to the beginning of an epoch.

        Args:
            epoch: The epoch, from 0.
        """
        self.epoch = epoch
        self._position = self._start = 0

    def batches(
        self, start: int = 0, device: torch.device | None = None, share: tuple[int, int] | None = None
    ) -> Iterator[RawBatch]:
        """Yields the batches of the current epoch before the batch stage.

        Args:
            start: The first batch wanted; those before it are not loaded.
            device: Where they are wanted: on a GPU they arrive one ahead; by default they stay on the host.
            share: ``(rank, ranks)``: the rows of each batch that one of several processes takes; by default all.

        Raises:
            CvkitError: A sample that cannot be loaded; it is named.
        """
        self._settle(device)
        return prefetched(self._shared(start, share, on_host=device is None or device.type == "cpu"), device)

    def _settle(self, device: torch.device | None) -> None:
        """Moves what is kept to the device, once it is complete, where that is wanted and there is room."""
        cache = self._cache
        if cache is None or device is None or cache.device == device or not cache.complete:
            return
        if device.type == "cpu" or self._asked == "ram":
            return
        if self._asked == "auto":
            free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else 0
            if cache.bytes > AUTO_SHARE * free:
                return
        cache.move(device)

    def _shared(self, start: int, share: tuple[int, int] | None, *, on_host: bool) -> Iterator[RawBatch]:
        epoch, order = self.epoch, self.order()
        if share is None:
            return (raw for raw in self._batches(epoch, order, start, on_host=on_host) if len(raw.images))
        unsure = getattr(self.dataset, "on_error", "raise") == "skip"
        shares = Shares(order, share, self.transform, unsure=unsure)
        loaded = self._batches(epoch, shares, start, shares.part, on_host=on_host and not unsure)
        return shares.complete(loaded, lambda indices: self._fetcher(epoch, indices))

    def _batches(
        self, epoch: int, order: Sequence[Tensor], start: int, part: PartOf | None = None, *, on_host: bool
    ) -> Iterator[RawBatch]:
        if self._cache is None or self._cache.empty:
            yield from self._loaded(epoch, order, range(start, len(order)), part, on_host=on_host)
            return
        wanted = list(enumerate(order))[start:]
        held = [self._cache.holds(indices) for _, indices in wanted]
        if wanted and all(held):
            self._makers.close()  # they would only take memory from here on
        to_load = [place for (place, _), is_held in zip(wanted, held, strict=True) if not is_held]
        fresh = self._loaded(epoch, order, to_load, part, on_host=on_host)
        for (place, indices), is_held in zip(wanted, held, strict=True):
            if not is_held:
                yield next(fresh)
                continue
            kept = self._cache.get(indices)
            yield RawBatch(*(kept if kept is not None else (_NOTHING, _NOTHING)), epoch, place)

    def _loaded(
        self, epoch: int, order: Sequence[Tensor], places: Sequence[int], part: PartOf | None, *, on_host: bool
    ) -> Iterator[RawBatch]:
        """Yields batches none of which is kept yet, those of no rows as well; nothing is held of those to come."""

        def finish(fetched: Fetched, number: int) -> tuple[Tensor, Tensor]:
            place = places[number]
            rows = part(place) if part is not None else None
            return self.finish(RawBatch(fetched.images, fetched.targets, epoch, place, part=rows))

        loads = self._makers.load(Requests(epoch, order, places), finish if on_host else None)
        for place, fetched in zip(places, loads, strict=True):
            self.skipped.update(fetched.skipped)
            if self._cache is not None:
                self._cache.put(fetched)
            yield RawBatch(fetched.images, fetched.targets, epoch, place, fetched.finished)

    def order(self) -> Batches:
        """Returns the samples of each batch of the current epoch, int64; made when they are asked for."""
        blocks = blocks_of(self.dataset) if self.shuffle == "blocks" else None
        order = epoch_order(
            len(self.dataset),
            self.seed,
            self.epoch,
            shuffle=self.shuffle,
            weights=self.weights,
            blocks=blocks,
            window=self.window,
        )
        return batches_of(order, self.batch_size, drop_last=self.drop_last)

    def peek(self) -> RawBatch | None:
        """Returns the first batch of the current epoch, made in this process: no worker starts, nothing moves on.

        Raises:
            CvkitError: A sample that cannot be loaded; it is named.
        """
        for place, indices in enumerate(self.order()):
            if self._cache is not None and self._cache.holds(indices):
                kept = self._cache.get(indices)
                if kept is not None:
                    return RawBatch(*kept, self.epoch, place)
                continue
            fetched = self._fetcher(self.epoch, indices.tolist())
            if fetched.indices:
                return RawBatch(fetched.images, fetched.targets, self.epoch, place)
        return None

    def finish(self, raw: RawBatch) -> tuple[Tensor, Tensor]:
        """Applies the transform's batch stage, on whatever device the batch is.

        Args:
            raw: A batch from :meth:`batches`.

        Returns:
            Inputs and targets.
        """
        if raw.finished is not None:
            return raw.finished
        if isinstance(self.transform, TwoStage):
            generator = torch.Generator().manual_seed(seeding.derive(self.seed, "batch", raw.epoch, raw.place))
            if raw.part is not None:
                return rows_of(self.transform, raw, raw.part, generator)
            return self.transform.batch(raw.images, raw.targets, generator)
        return _to_unit(raw.images), _to_unit(raw.targets) if raw.targets.ndim == raw.images.ndim else raw.targets

    def state_dict(self) -> dict[str, Any]:
        """Returns where an iteration by hand stands."""
        return {"seed": self.seed, "epoch": self.epoch, "batch": self._position}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes to where a saved iteration stood; the batches before it are not loaded.

        Raises:
            ArgumentError: The state is of another order, or of something else.
        """
        if set(state) != {"seed", "epoch", "batch"}:
            raise ArgumentError(
                "this is no state of a loader",
                got=f"keys {', '.join(sorted(map(str, state))) or '(none)'}",
                expected="keys batch, epoch, seed, as state_dict() returns them",
                fix="pass what loader.state_dict() returned",
            )
        if state["seed"] != self.seed:
            raise ArgumentError(
                "this state is of a loader with another seed",
                got=state["seed"],
                expected=self.seed,
                fix=f"build the loader with seed={state['seed']}",
            )
        self.set_epoch(state["epoch"])
        self._position = self._start = state["batch"]

    def __repr__(self) -> str:
        return (
            f"Loader({self.dataset!r}, batch_size={self.batch_size}, transform={self.transform!r}, shuffle={self.shuffle}, "
            f"workers={self.workers})"
        )


def _limit(cache: str) -> int | None:
    """Returns how many bytes a cache may take; ``None`` where the system does not say what is free."""
    free = free_memory()
    return int(free * (AUTO_SHARE if cache == "auto" else MOST_SHARE)) if free is not None else None


def _unshared(batch: Tensor) -> Tensor:
    """Returns a batch that may be kept: in shared memory each holds a file open, and there is little of it."""
    shared = batch.device.type == "cpu" and batch.is_shared()  # type: ignore[no-untyped-call]
    return batch.clone() if shared else batch


def _to_unit(images: Tensor) -> Tensor:
    return images.float() / 255 if images.dtype == torch.uint8 else images
