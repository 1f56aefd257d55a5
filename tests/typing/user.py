"""A user's script, as mypy sees it: checked with ``--strict`` by ``tests/test_typing.py``, never run."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, assert_type

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler

import cvkit
from cvkit import Callback, FitResult, History, TrainState
from cvkit.callbacks import Checkpoint, CSVLogger, EarlyStopping, LRSchedule, Progress, TensorBoard
from cvkit.diagnosis import Report
from cvkit.metrics import Accuracy, Metric


class GradientNorm(Callback):
    """A callback that remembers something."""

    def __init__(self) -> None:
        self.largest = 0.0

    def on_gradients_ready(self, state: TrainState) -> None:
        norms = [float(p.grad.norm()) for p in state.model.parameters() if p.grad is not None]
        self.largest = max([self.largest, *norms])
        assert_type(state.step, int)
        assert_type(state.lr, float)
        assert_type(state.loss, Tensor | None)
        assert_type(state.history, History)

    def on_epoch_end(self, state: TrainState) -> None:
        state.logs["largest_gradient"] = self.largest
        if self.largest > 100:
            state.request_stop("exploded")

    def state_dict(self) -> dict[str, Any]:
        return {"largest": self.largest}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.largest = state["largest"]


class Bias:
    """A metric of the user's own, which derives from nothing."""

    higher_is_better = False

    def __init__(self) -> None:
        self.total = torch.zeros(())

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        self.total += (outputs.mean() - targets.float().mean()).abs()

    def compute(self) -> Tensor:
        return self.total

    def reset(self) -> None:
        self.total = torch.zeros(())


def reconstruct(model: nn.Module, batch: Any, state: TrainState) -> tuple[Tensor, Tensor, Tensor]:
    inputs, _ = batch
    outputs: Tensor = model(inputs)
    return state.loss_fn(outputs, inputs), outputs, inputs


def only_loss(model: nn.Module, batch: Any, state: TrainState) -> Tensor:
    loss: Tensor = model(batch).square().mean()
    return loss


def cosine(optimizer: torch.optim.Optimizer, total_steps: int) -> LRScheduler:
    return CosineAnnealingLR(optimizer, total_steps)


def by_name(root: Path) -> FitResult:
    data = cvkit.data.from_folder(root, size=64, batch_size=32)
    assert_type(data.classes, list[str])
    model = cvkit.models.create("resnet9", num_classes=len(data.classes))
    assert_type(model, nn.Module)
    result = cvkit.fit(
        model,
        data.train,
        data.val,
        epochs=3,
        lr=3e-4,
        schedule="cosine",
        metrics=["accuracy", Accuracy()],
        callbacks=[
            GradientNorm(),
            EarlyStopping("val_loss", patience=3),
            TensorBoard(root / "runs"),
            CSVLogger("runs/log.csv"),
            Progress(),
            Checkpoint("runs", monitor="val_accuracy", mode="max", keep_last=2),
        ],
        resume=True,
    )
    return assert_type(result, FitResult)


def by_hand(model: nn.Module, batches: list[tuple[Tensor, Tensor]]) -> None:
    metric: Metric = Bias()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    schedule = LRSchedule(CosineAnnealingLR(optimizer, 10), every="epoch")
    cvkit.fit(
        model, batches, epochs=1, optimizer=optimizer, loss=nn.MSELoss(), metrics={"bias": metric}, callbacks=[schedule]
    )
    cvkit.fit(model, batches, epochs=1, optimizer=torch.optim.Adam, schedule=cosine, step=reconstruct)
    cvkit.fit(model, batches, epochs=1, step=only_loss, precision="bf16", device=torch.device("cpu"), seed=3)
    assert_type(cvkit.evaluate(model, batches, metrics=Bias()), dict[str, float])
    assert_type(cvkit.preflight(model, batches), Report)
    assert_type(cvkit.predict(model, batches), Tensor)


def results(result: FitResult) -> None:
    assert_type(result.history, History)
    assert_type(result.history[-1], dict[str, float])
    assert_type(result.history[1:], list[dict[str, float]])
    assert_type(result.history["val_loss"], list[float])
    assert_type(result.history.best("val_loss", mode="min"), dict[str, float])
    assert_type([row["train_loss"] for row in result.history], list[float])
    assert_type(result.stop_reason, str)
    assert_type(result.best_checkpoint, Path | None)
    assert_type(result.model, nn.Module)


def afterwards(path: Path) -> None:
    predictor = cvkit.load(path)
    assert_type(predictor, cvkit.Predictor)
    prediction = predictor.predict("photo.jpg")
    assert_type(prediction, cvkit.Prediction)
    assert_type(prediction.label, str)
    assert_type(prediction.probability, float)
    assert_type(cvkit.save_checkpoint(path, {"model": nn.Linear(1, 1).state_dict()}), Path)
    assert_type(cvkit.load_checkpoint(path)["model"], Any)
    try:
        cvkit.load(path)
    except cvkit.errors.CheckpointError as error:
        assert_type(str(error), str)
