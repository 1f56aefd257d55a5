"""CIFAR-10: the quick network by the tutorials' loop and by ``fit``, in time and accuracy, on a CPU or a GPU.

The same network, images and optimizer. The tutorials' loop decodes each image again in every epoch and asks for the
loss in every step; ``fit`` decodes once and never waits. ``--data DIR``: ``DIR/train/<class>/``, ``DIR/test/<class>/``.
"""

import argparse
import time
from pathlib import Path

import torch
from torch.utils.data import DataLoader
from torchvision import datasets, transforms

import cvkit


def by_tutorial(root: Path, epochs: int) -> float:
    """Trains as the tutorials do, and returns the accuracy."""
    transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))])
    train, test = (datasets.ImageFolder(str(root / part), transform) for part in ("train", "test"))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    net = cvkit.models.create("cifar_quick", num_classes=len(train.classes)).to(device)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.02, momentum=0.9)
    for _ in range(epochs):
        running_loss = 0.0
        for inputs, labels in DataLoader(train, 16, shuffle=True, num_workers=2):
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(net(inputs.to(device)), labels.to(device))
            loss.backward()
            optimizer.step()
            running_loss += loss.item()
    return cvkit.evaluate(net, DataLoader(test, 16, num_workers=2))["accuracy"]


def by_fit(root: Path, epochs: int) -> float:
    """Trains with cvkit, and returns the accuracy."""
    transform = cvkit.transforms.small_image_train(32, padding=0, flip=0.0)  # as above: no shifts, no mirror images
    data = cvkit.data.from_folder(root, size=32, batch_size=16, val="test", transform=transform)
    net = cvkit.models.create("cifar_quick", num_classes=len(data.classes))
    cvkit.fit(net, data.train, epochs=epochs, optimizer="momentum", lr=0.02, progress=False)
    return cvkit.evaluate(net, data.val)["accuracy"]


def main() -> None:
    """Measures both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="CIFAR-10 as images; generated shapes by default")
    parser.add_argument("--epochs", type=int, default=3, help="passes over the images")
    options = parser.parse_args()
    for seed, part in enumerate(("train", "test") if options.data is None else ()):
        cvkit.data.write_shapes(Path("runs/cifar10") / part, per_class=(400, 100)[seed], seed=seed)
    for run in (by_tutorial, by_fit):
        torch.manual_seed(0)
        began, accuracy = time.perf_counter(), run(options.data or Path("runs/cifar10"), options.epochs)
        print(f"{run.__name__:11}  accuracy {accuracy:.3f}  {time.perf_counter() - began:.1f} s")


if __name__ == "__main__":
    main()
