"""Gradient descent: batch, mini-batch and stochastic, compared in one plot.

The three differ in one number, the ``batch_size`` of the loader: all samples, a few, or one to an update. In as many
passes over the data the stochastic kind makes the most updates and gets there first; its loss never comes to rest.
"""

import argparse
from pathlib import Path

import torch
from torch import nn

import cvkit
from cvkit.data import ArrayDataset, Loader


class Losses:
    """A callback that keeps the loss of every update, as a history that can be drawn."""

    def __init__(self) -> None:
        self.history = cvkit.History()

    def on_batch_end(self, state: cvkit.TrainState) -> None:
        """Adds a row."""
        if state.loss is not None:
            self.history.rows.append({"epoch": state.step / state.steps_per_epoch, "train_loss": state.loss.item()})


def main() -> None:
    """Trains the same line three times."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/gradient_descent"), help="where the image goes")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)

    inputs = torch.randn(200, 1)
    points = ArrayDataset(inputs, 3 * inputs + 2 + 0.5 * torch.randn(200, 1))
    curves: dict[str, cvkit.History] = {}
    for name, batch_size in (("stochastic", 1), ("mini-batch", 20), ("batch", 200)):
        torch.manual_seed(1)  # all three start from the same line
        model, losses = nn.Linear(1, 1), Losses()
        train = Loader(points, batch_size, shuffle=True)
        result = cvkit.fit(
            model, train, epochs=10, loss="mse", optimizer="sgd", lr=0.02, callbacks=[losses], progress=False
        )
        line = f"y = {model.weight.item():.2f} x + {model.bias.item():.2f}"
        loss = cvkit.evaluate(model, Loader(points, 200), loss="mse")["loss"]
        print(f"{name:10}  {result.steps:4} updates: {line}, loss {loss:.3f}")
        curves[name] = losses.history
    try:
        cvkit.plots.plot_history(curves).savefig(options.out / "gradient_descent.png")
    except cvkit.errors.MissingDependencyError as missing:
        print("no image:", missing)


if __name__ == "__main__":
    main()
