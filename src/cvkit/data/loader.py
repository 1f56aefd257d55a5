"""``Loader``: order, workers, cache and transform, to batches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from cvkit import seeding
from cvkit.data.cache import AUTO_SHARE, Cache, free_memory
from cvkit.data.dataset import Dataset, fingerprint_of
from cvkit.data.fetch import Fetcher, TwoStage
from cvkit.data.order import batches_of, epoch_order
from cvkit.data.workers import Workers, choose_workers
from cvkit.errors import ArgumentError

__all__ = ["Loader", "RawBatch"]


class RawBatch(NamedTuple):
    """A batch before the transform's batch stage.

    Attributes:
        images: ``(B, …)``, uint8 for pictures.
        targets: ``(B, …)``.
        epoch: The epoch that it belongs to.
        place: Its place in the epoch, from 0.
    """

    images: Tensor
    targets: Tensor
    epoch: int
    place: int


class Loader:
    """Batches of a data set: ``(inputs, targets)``, ready for the model.

    The order of the samples is a pure function of (seed, epoch), the random numbers of a sample's transform of (seed, epoch,
    sample), those of a batch's of (seed, epoch, batch). So the batches are the same for any number of workers, cached or
    not, and after any resume; and no global random generator is touched.

    Iterated by hand it yields what ``fit`` sees, from the epoch's beginning, or after :meth:`load_state_dict` from where that
    stood; each complete iteration moves on to the next epoch.

    Args:
        dataset: Anything sized and indexable whose samples are ``(picture or tensor, target)``; torchvision's data sets as
            they are.
        batch_size: Samples to a batch; the last one of an epoch may be smaller.
        transform: A preset, or any callable on one sample's picture (a torchvision transform). Without one, pictures of
            one size become floats from 0 to 1.
        shuffle: Whether each epoch has a random order of its own.
        drop_last: Whether a smaller last batch is left out.
        workers: Processes that load; ``"auto"`` takes some where many files are to be decoded.
        cache: ``"ram"`` keeps each sample once decoded, where its per-image stage gives the same each time; ``"auto"`` does so
            if all of them take at most a quarter of the free memory; ``None`` never.
        seed: Seed of order and randomness.
        weights: Relative frequency of each sample; drawn with replacement, whatever ``shuffle`` says.

    Attributes:
        skipped: The message of each sample that was left out (``on_error="skip"``), by index.

    Raises:
        ArgumentError: A value that cannot be used, or no batch at all.
    """

    def __init__(
        self,
        dataset: Dataset,
        batch_size: int,
        *,
        transform: Any = None,
        shuffle: bool = False,
        drop_last: bool = False,
        workers: int | Literal["auto"] = "auto",
        cache: Literal["auto", "ram"] | None = "auto",
        seed: int = 0,
        weights: Sequence[float] | Tensor | None = None,
    ) -> None:
        _check(dataset, batch_size, drop_last, workers, cache, transform, seed)
        self.dataset: Any = dataset
        self.batch_size = batch_size
        self.transform = transform
        self.shuffle = shuffle
        self.drop_last = drop_last
        self.seed = seed
        self.weights = _check_weights(weights, len(dataset))
        self.skipped: dict[int, str] = {}
        self.epoch = 0
        self._position = 0
        self._start = 0
        self._fetcher = Fetcher(dataset, transform, seed)
        self._makers = Workers(self._fetcher, choose_workers(dataset) if workers == "auto" else workers)
        self._cache = self._choose_cache(cache)

    def _choose_cache(self, cache: str | None) -> Cache | None:
        if cache is None or (cache == "auto" and self._fetcher.random):
            return None
        if self._fetcher.random:
            raise ArgumentError(
                'cache="ram" cannot keep what is different each time',
                got="a per-image stage that draws random numbers, or may",
                expected="a deterministic one, e.g. small_image_train or any …_eval preset",
                fix='pass cache="auto" or None',
            )
        free = free_memory() if cache == "auto" else None
        if cache == "auto" and free is None:
            return None
        return Cache(len(self.dataset), int(free * AUTO_SHARE) if free is not None else None)

    @property
    def workers(self) -> int:
        """The processes that load; 0 for this one."""
        return self._makers.count

    @property
    def classes(self) -> list[str] | None:
        """The class names, where the data set has them."""
        classes = getattr(self.dataset, "classes", None)
        return [str(name) for name in classes] if classes is not None else None

    @property
    def fingerprint(self) -> str:
        """A hash of the data set and of what decides the order."""
        data = getattr(self.dataset, "fingerprint", None) or (type(self.dataset).__name__, len(self.dataset))
        weights = self.weights.tolist() if self.weights is not None else None
        return fingerprint_of(data, self.batch_size, self.shuffle, self.drop_last, self.seed, weights)

    def __len__(self) -> int:
        count = len(self.dataset)
        return count // self.batch_size if self.drop_last else -(-count // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        epoch = self.epoch
        self._position, self._start = self._start, 0
        for raw in self.batches(self._position):
            if self.epoch == epoch:  # unless set_epoch has said otherwise meanwhile
                self._position = raw.place + 1
            yield self.finish(raw)
        if self.epoch == epoch:
            self.set_epoch(epoch + 1)

    def set_epoch(self, epoch: int) -> None:
        """Goes to the beginning of an epoch.

        Args:
            epoch: The epoch, from 0.
        """
        self.epoch = epoch
        self._position = self._start = 0

    def batches(self, start: int = 0) -> Iterator[RawBatch]:
        """Yields the batches of the current epoch before the batch stage, on the host.

        Args:
            start: The first batch wanted; those before it are not loaded.

        Raises:
            CvkitError: A sample that cannot be loaded; it is named.
        """
        epoch = self.epoch
        order = epoch_order(len(self.dataset), self.seed, epoch, shuffle=self.shuffle, weights=self.weights)
        wanted = list(enumerate(batches_of(order, self.batch_size, drop_last=self.drop_last)))[start:]
        held = [self._cache is not None and self._cache.holds(indices) for _, indices in wanted]
        if wanted and all(held):
            self._makers.close()  # they would only take memory from here on
        fresh = self._makers.load(
            [(epoch, part.tolist()) for (_, part), is_held in zip(wanted, held, strict=True) if not is_held]
        )
        for (place, indices), is_held in zip(wanted, held, strict=True):
            if is_held and self._cache is not None:
                kept = self._cache.get(indices)
                if kept is not None:
                    yield RawBatch(*kept, epoch, place)
                continue
            fetched = next(fresh)
            self.skipped.update(fetched.skipped)
            if self._cache is not None:
                self._cache.put(fetched)
            if fetched.indices:
                yield RawBatch(fetched.images, fetched.targets, epoch, place)

    def finish(self, raw: RawBatch) -> tuple[Tensor, Tensor]:
        """Applies the transform's batch stage, on whatever device the batch is.

        Args:
            raw: A batch from :meth:`batches`.

        Returns:
            Inputs and targets.
        """
        if isinstance(self.transform, TwoStage):
            generator = torch.Generator().manual_seed(seeding.derive(self.seed, "batch", raw.epoch, raw.place))
            return self.transform.batch(raw.images, raw.targets, generator)
        images = raw.images.float() / 255 if raw.images.dtype == torch.uint8 else raw.images
        return images, raw.targets

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


def _check(
    dataset: Any,
    batch_size: object,
    drop_last: bool,
    workers: object,
    cache: object,
    transform: object,
    seed: object,
) -> None:
    if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
        raise ArgumentError(
            "batch_size cannot be used", got=repr(batch_size), expected="1 or more", fix="batch_size=64"
        )
    if not hasattr(dataset, "__len__") or not hasattr(dataset, "__getitem__"):
        raise ArgumentError(
            "the loader cannot use this data set",
            got=type(dataset).__name__,
            expected="an object with __len__ and __getitem__(i) -> (image, target)",
            fix="give an iterable of batches straight to fit instead",
        )
    if workers != "auto" and (isinstance(workers, bool) or not isinstance(workers, int) or workers < 0):
        raise ArgumentError(
            "workers cannot be used", got=repr(workers), expected='"auto" or 0 or more', fix='workers="auto"'
        )
    if cache not in ("auto", "ram", None):
        raise ArgumentError(
            "cache cannot be used", got=repr(cache), expected='"auto", "ram" or None', fix='cache="auto"'
        )
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise ArgumentError("seed cannot be used", got=repr(seed), expected="a whole number", fix="seed=0")
    if transform is not None and not isinstance(transform, TwoStage) and not callable(transform):
        raise ArgumentError(
            "transform cannot be used",
            got=repr(transform),
            expected="a preset or a callable on one picture",
            fix="e.g. transform=cvkit.transforms.classification_train(224)",
        )
    if len(dataset) < (batch_size if drop_last else 1):
        raise ArgumentError(
            "the loader would have no batches",
            got=f"{len(dataset)} samples, batch_size={batch_size}, drop_last={drop_last}",
            expected="at least one batch",
            fix="take drop_last=False or a smaller batch_size"
            if len(dataset)
            else "see whether the data set found its files",
        )


def _check_weights(weights: Sequence[float] | Tensor | None, count: int) -> Tensor | None:
    if weights is None:
        return None
    values = torch.as_tensor(weights, dtype=torch.float64)
    if values.shape != (count,) or not bool(torch.isfinite(values).all()) or values.min() < 0 or values.sum() == 0:
        raise ArgumentError(
            "weights cannot be used",
            got=f"{tuple(values.shape)} numbers from {float(values.min()) if values.numel() else '-'}",
            expected=f"{count} finite numbers of at least 0, not all of them 0: one a sample",
            fix="e.g. weights=[1 / count_of[target] for target in dataset.targets]",
        )
    return values
