"""Makes the checkpoints of one version of cvkit, and what that version itself reaches from them.

    PYTHONPATH=/path/to/a/checkout/src python make.py PREFIX

writes ``PREFIX-<kind>.pt`` (a run stopped on purpose), ``PREFIX-<kind>-end.pt`` (the weights at the end, after that
version has continued the run), ``PREFIX-weights.pt``, ``PREFIX-content.pt`` and ``PREFIX.json`` (losses, predictions,
hashes, and what they were computed with) beside this file. The test imports the runs from here, so that it builds
exactly the same ones.
"""

import hashlib
import json
import platform
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
import PIL
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import cvkit
from cvkit.callbacks import EMA, Checkpoint, EarlyStopping
from cvkit.data import ArrayDataset, FolderDataset, Loader, ParallelDataset
from cvkit.transforms import denoise, segmentation_train, small_image_train

HERE = Path(__file__).parent


class StopAt:
    """Stops a run at an update: where the first half of a run ends."""

    def __init__(self, step):
        self.step = step

    def on_batch_end(self, state):
        if state.step == self.step:
            state.request_stop("on purpose")


class Positive:
    """A metric with a state: the share of samples whose first output is positive."""

    def __init__(self):
        self.reset()

    def update(self, outputs, targets):
        self.positive += int((outputs[:, 0] > 0).sum())
        self.seen += len(outputs)

    def compute(self):
        return self.positive / max(self.seen, 1)

    def reset(self):
        self.positive = self.seen = 0

    def state_dict(self):
        return {"positive": self.positive, "seen": self.seen}

    def load_state_dict(self, state):
        self.positive, self.seen = state["positive"], state["seen"]


class Own(nn.Module):
    """A module that no registry knows."""

    def __init__(self):
        super().__init__()
        self.body = nn.Linear(6, 5)
        self.head = nn.Linear(5, 1)
        self.register_buffer("scale", torch.tensor(2.0))

    def forward(self, x):
        return self.head(torch.tanh(self.body(x))) * self.scale


# --- the data: images of random bytes, the same with any version of anything


def features(count, seed, columns=6):
    return np.random.RandomState(seed).rand(count, columns).astype(np.float32) - 0.5


def labels(count, seed, classes=3):
    return np.random.RandomState(seed + 100).randint(0, classes, count)


def image(seed, size=8):
    return Image.fromarray(np.random.RandomState(seed).randint(0, 256, (size, size, 3), dtype=np.uint8))


def image_folder(root):
    for number in range(12):
        folder = root / ("ants", "bees", "cats")[number % 3]
        folder.mkdir(parents=True, exist_ok=True)
        image(number).save(folder / f"{number:02d}.png")
    return root


def mask_folders(root):
    for number in range(8):
        for name in ("images", "masks"):
            (root / name).mkdir(parents=True, exist_ok=True)
        image(number, 16).save(root / "images" / f"{number}.png")
        levels = np.random.RandomState(50 + number).randint(0, 3, (16, 16), dtype=np.uint8)
        Image.fromarray(levels).save(root / "masks" / f"{number}.png")
    return root


# --- the runs: each returns the arguments of fit, freshly built


def folder_run(root):
    train = FolderDataset(image_folder(root / "train"))
    val = FolderDataset(image_folder(root / "val"), classes=train.classes)
    preset = small_image_train(8, padding=1)
    return {
        "model": cvkit.models.create("mlp", num_classes=3, size=8, hidden=(4,)),
        "train": Loader(train, 5, transform=preset, shuffle=True, workers=0, seed=4),
        "val": Loader(val, 5, transform=preset.evaluation(), workers=0),
        "epochs": 3,
        "schedule": "cosine",
        "seed": 1,
    }


def arrays_run(root):
    images = np.random.RandomState(7).randint(0, 256, (14, 8, 8, 3), dtype=np.uint8)
    data = ArrayDataset(images, labels(14, 7), classes=("ants", "bees", "cats"))
    return {
        "model": cvkit.models.create("resnet", num_classes=3, depth=8, width=2),
        "train": Loader(data, 4, transform=small_image_train(8, padding=1, erase=0.5), shuffle=True, workers=0),
        "epochs": 2,
        "optimizer": "nesterov",
        "lr": 0.01,
        "seed": 2,
    }


def accumulate_run(root):
    data = ArrayDataset(features(22, 1), labels(22, 1))
    return {
        "model": cvkit.models.create("mlp", num_classes=3, in_features=6, hidden=(5,), activation="tanh", dropout=0.2),
        "train": Loader(data, 3, shuffle=True, workers=0),
        "val": Loader(ArrayDataset(features(5, 2), labels(5, 2)), 3, workers=0),
        "epochs": 2,
        "accumulate": 3,
        "clip_norm": 1.0,
        "optimizer": "momentum",
        "lr": 0.1,
        "schedule": "onecycle",
        "seed": 3,
    }


def averages_run(root):
    data = ArrayDataset(features(20, 3), labels(20, 3))
    return {
        "model": cvkit.models.create("mlp", num_classes=3, in_features=6, hidden=(5,), activation="tanh"),
        "train": Loader(data, 4, shuffle=True, workers=0),
        "val": Loader(ArrayDataset(features(6, 4), labels(6, 4)), 4, workers=0),
        "epochs": 3,
        "optimizer": "momentum",
        "lr": 0.1,
        "metrics": {"accuracy": cvkit.metrics.Accuracy(), "positive": Positive()},
        "callbacks": [EMA(0.8), EarlyStopping("val_loss", patience=5)],
        "seed": 4,
    }


def masks_run(root):
    folder = mask_folders(root)
    data = ParallelDataset(folder / "images", folder / "masks", kind="mask", classes=("ground", "one", "two"))
    return {
        "model": cvkit.models.create("unet", num_classes=3, width=2, depth=1),
        "train": Loader(data, 2, transform=segmentation_train(16), shuffle=True, workers=0),
        "epochs": 2,
        "optimizer": "momentum",
        "lr": 0.01,
        "metrics": "iou",
        "seed": 5,
    }


def autoencoder_run(root):
    data = FolderDataset(image_folder(root / "train"))
    return {
        "model": cvkit.models.create("autoencoder_conv", widths=(3, 2), activation="tanh"),
        "train": Loader(data, 4, transform=denoise(8, noise=0.1), shuffle=True, workers=0),
        "epochs": 3,
        "loss": "mse",
        "optimizer": "momentum",
        "lr": 0.1,
        "seed": 6,
    }


def own_run(root):
    inputs = torch.from_numpy(features(18, 5))
    data = TensorDataset(inputs, inputs.sum(1, keepdim=True))
    return {
        "model": Own(),
        "train": DataLoader(data, batch_size=4, shuffle=True, generator=torch.Generator().manual_seed(8)),
        "epochs": 2,
        "loss": "smooth_l1",
        "optimizer": lambda parameters: torch.optim.SGD(parameters, lr=0.05, momentum=0.5),
        "schedule": "linear",
        "seed": 7,
    }


RUNS = {
    "folder": (folder_run, 3),  # at the end of an epoch; all others in the middle of one
    "arrays": (arrays_run, 2),
    "accumulate": (accumulate_run, 4),
    "averages": (averages_run, 7),
    "masks": (masks_run, 2),
    "autoencoder": (autoencoder_run, 4),
    "own": (own_run, 3),
}
"""For each kind what builds the run, and the update at which it was stopped."""

INPUTS = {"folder": image(90), "arrays": image(90), "masks": image(91, 16), "autoencoder": image(90)}
"""What a predictor is asked for the kinds that describe themselves."""

CONTENT = {
    "model": {"weight": torch.arange(6.0).reshape(2, 3)},
    "notes": ["plain", 3, 0.5, None, True, b"bytes", ("a", "tuple")],
    7: {"half": torch.tensor([1.5, -2.0], dtype=torch.float16), "index": torch.tensor([3, 4])},
}
"""What ``PREFIX-content.pt`` holds."""


# --- what is done with them


def start(build, root, out, **options):
    """Trains, with a checkpoint in ``out``."""
    torch.manual_seed(11)  # the initial weights; fit's own seed is set later
    arguments = build(root)
    extra = [*arguments.pop("callbacks", ()), *options.pop("callbacks", ())]
    callbacks = [*extra, Checkpoint(out, monitor=None)]
    model, train = arguments.pop("model"), arguments.pop("train")
    return cvkit.fit(
        model,
        train,
        arguments.pop("val", None),
        callbacks=callbacks,
        progress=False,
        device="cpu",
        precision="fp32",
        **arguments,
        **options,
    )


def outputs(model, path):
    """The first outputs of a file's weights, for an input that is the same everywhere."""
    cvkit.load_weights(model, path)
    model.eval()
    first = next(model.parameters())
    inputs = torch.linspace(-1, 1, 6)[None] if first.shape[1] == 6 else torch.linspace(-1, 1, 192).reshape(1, 3, 8, 8)
    with torch.no_grad():
        return model(inputs).flatten()[:8].tolist()


def predicted(path, given):
    """What a predictor made of the file alone says, as plain numbers."""
    prediction = cvkit.load(path, device="cpu").predict(given, progress=False)
    if prediction.task == "segmentation":
        return {"present": prediction.present, "mask": prediction.mask.flatten().tolist()}
    if prediction.task == "classification":
        return {"label": prediction.label, "probability": prediction.probability}
    return {"image": np.asarray(prediction.image).flatten()[:48].tolist()}


def digest(weights):
    """A hash over names and bytes."""
    made = hashlib.sha256()
    for name, value in weights.items():
        made.update(name.encode() + value.contiguous().numpy().tobytes())
    return made.hexdigest()


def environment():
    """What floating-point numbers depend on to the last bit."""
    return {
        "torch": str(torch.__version__),
        "numpy": np.__version__,
        "pillow": PIL.__version__,
        "machine": platform.machine(),
        "cpu": torch.backends.cpu.get_cpu_capability(),
    }


def reached(result):
    """The weights at the end of a run: the model's, and those that its checkpoint gives, where they are others."""
    own, saved = result.model.state_dict(), cvkit.load_checkpoint(result.last_checkpoint)["model"]
    return {"model": own} | ({"saved": saved} if digest(saved) != digest(own) else {})


def make(prefix):
    recorded = {"environment": environment(), "runs": {}}
    for kind, (build, step) in RUNS.items():
        with tempfile.TemporaryDirectory() as place:
            root, path = Path(place), HERE / f"{prefix}-{kind}.pt"
            half = start(build, root / "data", root / "half", callbacks=[StopAt(step)])
            shutil.copy(half.last_checkpoint, path)
            whole = start(build, root / "data", root / "whole", resume=path)
            end = reached(whole)
            torch.save(end, HERE / f"{prefix}-{kind}-end.pt")
            recorded["runs"][kind] = {
                "steps": [half.steps, whole.steps],
                "outputs": outputs(build(root / "data")["model"], path),
                "predicted": predicted(path, INPUTS[kind]) if kind in INPUTS else None,
                "history": whole.history.rows,
                "sha256": {name: digest(weights) for name, weights in end.items()},
            }
    cvkit.save_weights(_weights(), HERE / f"{prefix}-weights.pt")
    cvkit.save_checkpoint(HERE / f"{prefix}-content.pt", CONTENT)
    recorded["weights"] = outputs(Own(), HERE / f"{prefix}-weights.pt")
    (HERE / f"{prefix}.json").write_text(json.dumps(recorded, indent=1) + "\n", "utf-8")


def _weights():
    torch.manual_seed(12)
    return Own()


if __name__ == "__main__":
    torch.set_num_threads(1)
    make(sys.argv[1])
