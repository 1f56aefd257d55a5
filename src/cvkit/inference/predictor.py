"""``Predictor``: a model with everything that it needs to look at images."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias, overload

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from cvkit import export as export_
from cvkit.arguments import check_choice
from cvkit.data import Loader
from cvkit.data.colour_profiles import Colour, check_colour
from cvkit.data.datasets.base import class_names
from cvkit.data.datasets.files import Background, OnError
from cvkit.data.decode import MAX_PIXELS
from cvkit.errors import ArgumentError, DataError, unknown_name
from cvkit.inference.batch_predictions import predictions_of, run_views
from cvkit.inference.export_graph import Graph, metadata_of
from cvkit.inference.outputs import TASKS, Reader, Task, View, Views, views_of
from cvkit.inference.prediction import Prediction, Predictions
from cvkit.inference.progress_bar import bar, warn_skipped
from cvkit.inference.sources import Decoding, Item, PredictionDataset, collect_items, skipped_by
from cvkit.pixels import WHITE
from cvkit.training import Runtime
from cvkit.training.loaders import adapt
from cvkit.training.runtime import Precision
from cvkit.transforms import Transform

__all__ = ["Predictor"]

Array: TypeAlias = "np.ndarray[Any, Any] | Tensor"


class Predictor:
    """A model with everything that it needs to look at images.

    :func:`cvkit.load` makes one from a checkpoint; with a model in hand::

        predictor = cvkit.Predictor(model, classes, cvkit.transforms.classification_eval(224))

    Images go the way that they go in validation: the same decoding, the same first stage, the same batches. So with the
    validation's batch size (which a predictor from a checkpoint has) the probabilities of a folder are, on a CPU, to the last
    bit those of its validation loader, and what is computed of them is what :func:`cvkit.evaluate` says. With other batch
    sizes they differ in the last bits: convolutions and matrix products sum in an order that depends on the batch's size.

    Args:
        model: The module; it is moved to the device and put into evaluation mode.
        classes: The name of each output; ``None`` for a model without classes (a regression, an autoencoder).
        transform: The preprocessing, as in validation: a preset (of one for training its evaluation twin), or any callable on
            one image.
        task: ``"classification"``, ``"multilabel"`` (several classes may be right), ``"segmentation"``, ``"regression"`` or
            ``"reconstruction"`` (images); ``"auto"`` tells by the shape of the outputs, and takes ``(N, C)`` for a
            classification.
        outputs: Whether the model gives ``"logits"`` or ``"probabilities"``.
        device: ``"auto"`` or a device.
        precision: As in ``fit``.
        batch_size: How many images go through the model at a time.
        background: What lies behind transparent pixels.
        max_pixels: The largest image that is decoded, in pixels.
        whole: Whether a large JPEG is decoded in its full size even where less is enough, as images with masks are.
        colour: What becomes of an image whose file says that its colours are not sRGB: ``"convert"`` or ``"ignore"``, as in
            :func:`cvkit.data.decode`.

    Attributes:
        model: The module.
        classes: The class names, or ``None``.
        transform: The preprocessing.
        batch_size: How many images go through the model at a time.

    Raises:
        ArgumentError: An argument that cannot be used.
        DeviceError: A device or precision that is not there.
    """

    def __init__(
        self,
        model: nn.Module,
        classes: Sequence[str] | None,
        transform: Transform | Callable[[Image.Image], Tensor],
        *,
        task: Task | Literal["auto"] = "auto",
        outputs: Literal["logits", "probabilities"] = "logits",
        device: str | torch.device = "auto",
        precision: Precision = "fp32",
        batch_size: int = 32,
        background: Background = WHITE,
        max_pixels: int = MAX_PIXELS,
        whole: bool = False,
        colour: Colour = "convert",
    ) -> None:
        check_colour(colour)
        _check(model, transform, batch_size)
        if task not in ("auto", *TASKS):
            raise unknown_name("task", task, ("auto", *TASKS))
        if outputs not in ("logits", "probabilities"):
            raise unknown_name("kind of outputs", outputs, ("logits", "probabilities"))
        self.classes = class_names(classes) if classes is not None else None
        if self.classes is None and task in ("classification", "multilabel", "segmentation"):
            raise ArgumentError(
                f"{task} needs classes", got="classes=None", expected="a name for each output", fix='classes=["a", "b"]'
            )
        self.transform = transform.evaluation() if isinstance(transform, Transform) else transform
        self.batch_size = batch_size
        self.runtime = Runtime(device, precision)
        self.model = self.runtime.prepare(model).eval()
        self._reader = Reader(task, tuple(self.classes) if self.classes is not None else None, outputs == "logits")
        self._decoding = Decoding(background, max_pixels, whole, colour)

    def __repr__(self) -> str:
        return f"Predictor({type(self.model).__name__}, classes={self.classes}, transform={self.transform!r})"

    @overload
    def predict(  # type: ignore[overload-overlap]  # a str is an iterable of str, too
        self,
        images: str | Path | Image.Image,
        *,
        batch_size: int | None = None,
        tta: Views = None,
        on_error: OnError = "raise",
        probability_maps: bool = False,
        workers: int | Literal["auto"] = "auto",
        progress: bool = True,
    ) -> Prediction: ...
    @overload
    def predict(
        self,
        images: np.ndarray[Any, Any] | Tensor,
        *,
        batch_size: int | None = None,
        tta: Views = None,
        on_error: OnError = "raise",
        probability_maps: bool = False,
        workers: int | Literal["auto"] = "auto",
        progress: bool = True,
    ) -> Any: ...
    @overload
    def predict(
        self,
        images: Iterable[str | Path | Image.Image | np.ndarray[Any, Any] | Tensor],
        *,
        batch_size: int | None = None,
        tta: Views = None,
        on_error: OnError = "raise",
        probability_maps: bool = False,
        workers: int | Literal["auto"] = "auto",
        progress: bool = True,
    ) -> Predictions: ...
    def predict(
        self,
        images: Any,
        *,
        batch_size: int | None = None,
        tta: Views = None,
        on_error: OnError = "raise",
        probability_maps: bool = False,
        workers: int | Literal["auto"] = "auto",
        progress: bool = True,
    ) -> Any:
        """Predicts one image or many.

        One image gives a :class:`Prediction`; a folder, a list (of anything here, folders too) or a batch ``(N, …)`` gives
        :class:`Predictions`, in order. (A type checker takes a path for an image: write ``predict([folder])``, which is the
        same.)

        * A file is decoded as the datasets of :mod:`cvkit.data` do it: turned upright, in 8 bits, transparent pixels white.
        * A folder gives all images in it and below, by their endings, without hidden ones and links that lead outside; first
          its own files and then folder by folder, sorted, which is the order of a ``FolderDataset``.
        * A PIL image of any mode.
        * A NumPy array has its channels last: ``(H, W)``, ``(H, W, C)`` or ``(N, H, W, C)``; a tensor has them first:
          ``(H, W)``, ``(C, H, W)`` or ``(N, C, H, W)``; ``C`` is 1 (grey), 3 (RGB) or 4 (with transparency). Either uint8, or
          floats from 0 to 1, which become the nearest of 256 levels. They go through the same preprocessing as files, the
          normalisation included. A shape that can be read in two ways is an error.

        Args:
            images: What to look at.
            batch_size: How many images go through the model at a time; by default as many as in the run's validation, see
                :class:`Predictor`.
            tta: Test-time augmentation: the mean of the probabilities (or values) over several views of each image, after
                its preprocessing; masks are turned back first. ``"flip"``: the image and its mirror image. Or how many of
                ``original, flip, vertical_flip, rotate180, rotate90, rotate270, transpose, transverse``, from the first; or a
                list of such names. It takes as many times longer.
            on_error: ``"raise"`` names an image that cannot be read; ``"skip"`` leaves it out, of several, and tells of it.
            probability_maps: Whether masks keep the probability of each class at each pixel too.
            workers: Processes that decode; ``"auto"`` takes some for thousands of files.
            progress: Whether to show a bar for several batches, in a terminal or notebook.

        Raises:
            ImageError: An image that is missing, damaged, or none.
            DataError: A folder without images, or none of several can be read.
            ArgumentError: Something that is no image, or an argument that cannot be used.
            ModelError: A model that fails on what the preprocessing makes, or outputs that do not fit the classes, or are not
                finite.

        Warns:
            CvkitWarning: Images that were left out, or links that were not followed.
        """
        items, alone = collect_items(images)
        _check_on_error(on_error)
        loader = self._loader(items, batch_size, "raise" if alone else on_error, workers)
        coming = self._batches(loader, views_of(tta), probability_maps)
        shown = bar(len(items), progress and len(loader) > 1)
        found: list[Prediction] = []
        try:
            for batch in coming:
                found += batch
                if shown is not None:
                    shown.update(len(batch))
        finally:
            if shown is not None:
                shown.close()
        if alone:
            return found[0]
        skipped = skipped_by(loader)
        if not found:
            raise DataError(
                "none of the images can be read",
                got=f"{len(skipped)} that were left out, e.g. {next(iter(skipped.values())).splitlines()[0]}",
                expected="at least one that can",
                fix="see what they are",
            )
        warn_skipped(skipped, len(items))
        return Predictions(found, skipped)

    def stream(
        self,
        images: Any,
        *,
        batch_size: int | None = None,
        tta: Views = None,
        on_error: OnError = "raise",
        probability_maps: bool = False,
        workers: int | Literal["auto"] = "auto",
    ) -> Iterator[Prediction]:
        """Yields the predictions of :meth:`predict` one by one, as they are made, so that not all have to be kept.

        Args:
            images: As there.
            batch_size: As there.
            tta: As there.
            on_error: As there.
            probability_maps: As there.
            workers: As there.

        Raises:
            CvkitError: As there, when it comes to the image.
        """
        items, _ = collect_items(images)
        _check_on_error(on_error)
        loader = self._loader(items, batch_size, on_error, workers)
        coming = self._batches(loader, views_of(tta), probability_maps)

        def each() -> Iterator[Prediction]:
            for batch in coming:
                yield from batch
            warn_skipped(skipped_by(loader), len(items))

        return each()  # so that arguments that cannot be used are told at once

    def _loader(
        self, items: Sequence[Item], batch_size: int | None, on_error: OnError, workers: int | Literal["auto"]
    ) -> Loader:
        given = PredictionDataset(items, self._decoding, on_error)
        size = self.batch_size if batch_size is None else batch_size
        return Loader(given, size, transform=self.transform, workers=workers, cache=None)

    def _batches(self, loader: Loader, views: Sequence[View], probability_maps: bool) -> Iterator[list[Prediction]]:
        """Yields the predictions of each batch."""
        given: PredictionDataset = loader.dataset
        self.model.eval()
        source = adapt(loader)
        for raw in loader.batches(0, self.runtime.device):
            inputs, _ = source.finish(raw, self.runtime)
            with torch.no_grad():
                with self.runtime.autocast():
                    batch_outputs = run_views(self.runtime.module, inputs, views, self._reader)
                sizes_and_places = raw.targets.tolist()
                made = predictions_of(
                    batch_outputs,
                    [(height, width) for _, height, width in sizes_and_places],
                    [given.path(index) for index, *_ in sizes_and_places],
                    [given.name(index) for index, *_ in sizes_and_places],
                    self._reader.classes,
                    self.transform,
                    probability_maps=probability_maps,
                )
            yield made  # out here: whoever takes it may want gradients

    def export(
        self,
        path: str | Path,
        *,
        inputs: Literal["pixels", "normalized"] = "pixels",
        check: bool = True,
    ) -> Path:
        """Writes the model to a file that runs without cvkit: ``.onnx``, or ``.pt2`` for ``torch.export``.

        The graph takes ``pixels``, uint8 ``(N, C, size, size)``, RGB or grey, as the preprocessing's first stage makes them of
        an image, for any ``N``; it normalises them and gives ``probabilities``, float32 ``(N, classes)`` (of a segmentation
        ``(N, classes, size, size)``), or ``outputs`` where there are no classes. How to come from an image to the pixels
        stands in the file (:func:`cvkit.export.read_metadata`): size, resizing and interpolation, mean, std, classes, versions.

        Args:
            path: The file; its ending says which kind.
            inputs: ``"pixels"``, or ``"normalized"`` for a graph that takes float32 pixels which have been normalised by the
                mean and std in the file; for devices that do not take bytes.
            check: Whether the file is run on random pixels, and compared with the model, before it gets its name.

        Returns:
            The path.

        Raises:
            ArgumentError: Another ending, or a preprocessing that is no preset.
            ModelError: A model that cannot be exported, or gives something else there.
            MissingDependencyError: ONNX is not installed.
        """
        if inputs not in ("pixels", "normalized"):
            raise unknown_name("kind of inputs", inputs, ("pixels", "normalized"))
        if not isinstance(self.transform, Transform):
            raise ArgumentError(
                "this predictor cannot be exported",
                got=f"a preprocessing that cannot be described: {self.transform!r}",
                expected="a preset of cvkit.transforms",
                fix="cvkit.export.write(model, path, example) exports any model without its preprocessing",
            )
        export_.check_path(path)
        graph = Graph(self.model, self.transform, self._reader, normalized=inputs == "normalized")
        example = graph.example()
        task = graph.task(example)
        return export_.write(
            graph,
            path,
            example,
            metadata=metadata_of(self.model, self.transform, self._reader, task, self._decoding, inputs),
            input_name=inputs,
            output_name="outputs" if task in ("regression", "reconstruction") else "probabilities",
            check=check,
        )


def _check(model: object, transform: object, batch_size: object) -> None:
    if not isinstance(model, nn.Module):
        raise ArgumentError(
            "model cannot be used",
            got=f"the class {model.__name__}" if isinstance(model, type) else type(model).__name__,
            expected="an nn.Module",
            fix="cvkit.load(path) makes a predictor from a checkpoint",
        )
    if not isinstance(transform, Transform) and (isinstance(transform, type) or not callable(transform)):
        raise ArgumentError(
            "transform cannot be used",
            got=repr(transform),
            expected="a preset, or a callable on one image",
            fix="e.g. cvkit.transforms.classification_eval(224)",
        )
    if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
        raise ArgumentError(
            "batch_size cannot be used", got=repr(batch_size), expected="1 or more", fix="batch_size=32"
        )


def _check_on_error(on_error: object) -> None:
    check_choice("on_error", on_error, ("raise", "skip"), expected='"raise" or "skip"', fix="leave it out")
