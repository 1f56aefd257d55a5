"""A user's mistakes: each line that ends in ``# error: CODE`` must be refused by mypy, and no other."""

from pathlib import Path
from typing import Any

from torch import Tensor, nn

import cvkit
from cvkit import Callback, History, TrainState
from cvkit.callbacks import Checkpoint, EarlyStopping


class Wrong(Callback):
    def on_epoch_end(self, state: int) -> None:  # error: override
        return None


def step(model: nn.Module, batch: Any) -> Tensor:
    loss: Tensor = model(batch).mean()
    return loss


def mistakes(model: nn.Module, batches: list[Any], history: History, state: TrainState) -> None:
    cvkit.fit(model, batches, epochs="3")  # error: arg-type
    cvkit.fit(model, batches)  # error: call-arg
    cvkit.fit(model, batches, epochs=3, epoch=3)  # error: call-arg
    cvkit.fit("resnet18", batches, epochs=3)  # error: arg-type
    cvkit.fit(model, batches, epochs=3, precision="half")  # error: arg-type
    cvkit.fit(model, batches, epochs=3, step=step)  # error: arg-type
    cvkit.fit(model, batches, epochs=3, lr="high")  # error: arg-type
    cvkit.fit(model, batches, epochs=3, callbacks=Checkpoint("runs"))  # error: arg-type
    cvkit.fit(model, batches, epochs=3, metrics=[nn.MSELoss()])  # error: list-item
    Checkpoint("runs", mode="highest")  # error: arg-type
    EarlyStopping(patience="long")  # error: arg-type
    history[1.5]  # error: call-overload
    cvkit.evaluate(model, batches)["loss"].backward()  # error: attr-defined
    print(cvkit.load(Path("best.pt")).label)  # error: attr-defined
    cvkit.find_learning_rate(model)  # error: attr-defined
    state.stop_training = True  # error: attr-defined
