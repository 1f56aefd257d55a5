"""Knowledge distillation: a small network learns from the answers of a larger one, without a label.

The student's loss is the divergence from the teacher's softened probabilities (Hinton et al., Distilling the Knowledge in
a Neural Network, 2015). All of it is one ``step``; a share of the loss on the labels could be added there.
"""

import argparse
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import kl_div, log_softmax

import cvkit

SOFTNESS = 4.0
"""The temperature by which logits are divided."""


def step_with(teacher: nn.Module) -> Any:
    """Returns a step whose targets are the teacher's answers."""

    def step(model: nn.Module, batch: tuple[Tensor, Tensor], state: cvkit.TrainState) -> tuple[Tensor, Tensor, Tensor]:
        images, labels = batch
        outputs = model(images)
        with torch.no_grad():
            soft = log_softmax(teacher(images) / SOFTNESS, 1)
        loss = kl_div(log_softmax(outputs / SOFTNESS, 1), soft, reduction="batchmean", log_target=True)
        return SOFTNESS**2 * loss, outputs, labels  # the labels are for the accuracy only

    return step


def main() -> None:
    """Trains a teacher, a student with the labels, and the same student with the teacher."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="images, one folder a class; generated shapes by default")
    parser.add_argument("--epochs", type=int, default=3, help="passes of a student over the images")
    parser.add_argument("--out", type=Path, default=Path("runs/distillation"), help="where generated images go")
    options = parser.parse_args()

    root = options.data or cvkit.data.write_shapes(options.out / "shapes", 100, classes=("cross", "ring", "square"))
    plain = cvkit.transforms.small_image_train(32, padding=0)
    data = cvkit.data.from_folder(root, size=32, batch_size=8, val=0.3, transform=plain)
    teacher, few = None, options.epochs
    for name, width, epochs in (("teacher", 16, 6), ("student with labels", 4, few), ("student with teacher", 4, few)):
        torch.manual_seed(0)
        data.train.set_epoch(0)  # all see the same batches
        model = cvkit.models.create("resnet9", num_classes=len(data.classes), width=width)
        how = {"step": step_with(teacher), "metrics": "accuracy"} if name.endswith("with teacher") and teacher else {}
        result = cvkit.fit(model, data.train, data.val, epochs=epochs, lr=3e-3, schedule="onecycle", **how)
        teacher = teacher or result.model.eval()
        count = sum(one.numel() for one in model.parameters())
        print(f"{name}: {count:,} parameters, {result.history[-1]['val_accuracy']:.1%} of the validation images")


if __name__ == "__main__":
    main()
