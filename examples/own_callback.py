"""A custom callback: the accuracy of the worst class is logged, and a goal for it ends the run.

A callback is any object with methods named after the events of a run. Each is given the state, which knows everything;
what is put into ``state.logs`` is in the history, and in TensorBoard too.
"""

import argparse
from pathlib import Path

import torch

import cvkit


class WorstClass:
    """Logs the validation accuracy of the worst of some classes, and stops when it has reached a goal."""

    def __init__(self, classes: int, goal: float) -> None:
        self.classes, self.goal = classes, goal

    def on_epoch_start(self, state: cvkit.TrainState) -> None:
        """Forgets the epoch before."""
        self.right = self.seen = torch.zeros(self.classes, device=state.runtime.device)

    def on_validation_batch_end(self, state: cvkit.TrainState) -> None:
        """Counts, by class."""
        right = state.targets[state.outputs.argmax(1) == state.targets]
        self.right = self.right + torch.bincount(right, minlength=self.classes)
        self.seen = self.seen + torch.bincount(state.targets, minlength=self.classes)

    def on_validation_end(self, state: cvkit.TrainState) -> None:
        """Adds a column to the epoch's row, and ends the run if that is good enough."""
        state.logs["worst_class"] = float((self.right / self.seen).min())
        if state.logs["worst_class"] >= self.goal:
            state.request_stop(f"every class is right in {self.goal:.0%} of its images")


def main() -> None:
    """Trains until it is good enough."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="images, one folder a class; generated shapes by default")
    parser.add_argument("--out", type=Path, default=Path("runs/own_callback"), help="where generated images go")
    options = parser.parse_args()
    torch.manual_seed(0)

    root = options.data or cvkit.data.write_shapes(options.out / "shapes", per_class=100)
    upright = cvkit.transforms.small_image_train(32, padding=0)
    data = cvkit.data.from_folder(root, size=32, batch_size=8, val=0.2, transform=upright)
    model = cvkit.models.create("resnet9", num_classes=len(data.classes), width=8)
    worst = WorstClass(len(data.classes), goal=0.85)
    result = cvkit.fit(model, data.train, data.val, epochs=20, lr=3e-3, callbacks=[worst], progress=False)
    print(result.history)
    print(f"after {result.epochs} epochs: {result.stop_reason}")


if __name__ == "__main__":
    main()
