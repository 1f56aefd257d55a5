"""CIFAR-10 as fast as it goes: ResNet-9, one cycle of the learning rate, smoothed labels and averaged weights.

``--data DIR``: ``DIR/train/<class>/``, ``DIR/test/<class>/``; generated shapes by default. On a GPU the images stay there.
The recipe is that of Page, How to Train Your ResNet, 2018, and of Jordan, 94% on CIFAR-10 in 3.29 Seconds, 2024: Nesterov
momentum, weight decay, a short warm-up, label smoothing, an average of the weights, mirror images at prediction.
"""

import argparse
import time
from pathlib import Path

import torch

import cvkit
from cvkit.callbacks import EMA


def main() -> None:
    """Trains and evaluates."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="CIFAR-10 as images; generated shapes by default")
    parser.add_argument("--epochs", type=int, default=10, help="passes over the images; 16 for CIFAR-10")
    parser.add_argument("--batch", type=int, default=16, help="images to a batch; 512 for CIFAR-10")
    parser.add_argument("--lr", type=float, default=0.02, help="highest learning rate; 0.4 for batches of 512")
    parser.add_argument("--width", type=int, default=8, help="maps of the first layer; 64 for CIFAR-10")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, …")
    parser.add_argument("--compile", action="store_true", help="run the model through torch.compile")
    options = parser.parse_args()
    root = options.data or Path("runs/cifar10_fast")
    for seed, part in enumerate(("train", "test") if options.data is None else ()):
        cvkit.data.write_shapes(root / part, per_class=(100, 40)[seed], seed=seed)
    torch.manual_seed(0)
    data = cvkit.data.from_folder(root, size=32, batch_size=options.batch, val="test")
    model = cvkit.models.create("resnet9", num_classes=len(data.classes), width=options.width)
    began = time.perf_counter()
    result = cvkit.fit(
        model,
        data.train,
        epochs=options.epochs,
        loss=torch.nn.CrossEntropyLoss(label_smoothing=0.2),
        optimizer=lambda p: torch.optim.SGD(p, lr=options.lr, momentum=0.9, nesterov=True, weight_decay=5e-4),
        schedule="onecycle",
        callbacks=[EMA(0.95)],
        device=options.device,
        compile=options.compile,
        progress=False,
    )
    seconds = time.perf_counter() - began
    accuracy = cvkit.evaluate(model, data.val, device=options.device)["accuracy"]
    print(f"{result.epochs} epochs, {seconds:.1f} s, accuracy {accuracy:.4f}")


if __name__ == "__main__":
    main()
