"""Save, stop, resume: a run in two parts is the whole one, and its saved model judges an image.

A run is stopped in the middle of an epoch, and the same call continues it: in the end its weights are bit for bit those
of a run that was never stopped. Run the script again, and it finds everything done.
"""

import argparse
from pathlib import Path

import torch

import cvkit
from cvkit.callbacks import Checkpoint


class StopAt:
    """Ends a run at a step, as Ctrl-C would."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_batch_end(self, state: cvkit.TrainState) -> None:
        """Asks for the end."""
        if state.step == self.step:
            state.request_stop("stopped on purpose")


def train(root: Path, directory: Path, *callbacks: StopAt) -> cvkit.FitResult:
    """Trains, or continues what the directory holds."""
    torch.manual_seed(0)
    upright = cvkit.transforms.small_image_train(32, padding=0)
    data = cvkit.data.from_folder(root, size=32, batch_size=8, val=0.2, transform=upright)
    model = cvkit.models.create("resnet9", num_classes=len(data.classes), width=8)
    both = [*callbacks, Checkpoint(directory, monitor="val_accuracy")]
    return cvkit.fit(model, data.train, data.val, epochs=4, lr=3e-3, schedule="cosine", resume=True, callbacks=both)


def main() -> None:
    """Trains without and with a break, compares, and asks the saved model about an image."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="images, one folder a class; generated shapes by default")
    parser.add_argument("--out", type=Path, default=Path("runs/save_resume"), help="where checkpoints go")
    options = parser.parse_args()

    root = options.data or cvkit.data.write_shapes(options.out / "shapes", per_class=100)
    whole = train(root, options.out / "whole")
    first = train(root, options.out / "parts", StopAt(whole.steps // 2 + 5))
    second = train(root, options.out / "parts")
    one, other = whole.model.state_dict(), second.model.state_dict()
    print(f"{first.stop_reason} at step {first.steps} of {whole.steps}, continued to step {second.steps}")
    print("the same weights, bit for bit:", all(torch.equal(one[name], other[name]) for name in one))

    predictor = cvkit.load(options.out / "parts" / "best.pt")  # the file knows model, classes and preprocessing
    image = sorted(path for path in root.rglob("*.*g") if path.is_file())[0]
    print(f"{image.parent.name}/{image.name}: {predictor.predict(image)}")


if __name__ == "__main__":
    main()
