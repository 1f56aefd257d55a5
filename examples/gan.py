"""A generative adversarial network: two networks, two optimizers, one ``step``.

Each network has an optimizer of its own. Both losses are computed in one step; ``detach`` keeps each from the other's
weights, so that one backward pass gives both gradients (Goodfellow et al., Generative Adversarial Nets, 2014).
"""

import argparse
from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision.utils import save_image

import cvkit
from cvkit.data import FolderDataset, Loader, write_shapes


class Pair(nn.Module):
    """A maker of images ``(N, 1, 16, 16)`` from 16 random numbers each, and a judge of them."""

    def __init__(self) -> None:
        super().__init__()
        layers = [nn.Linear(16, 128), nn.ReLU(), nn.Linear(128, 256), nn.Sigmoid(), nn.Unflatten(1, (1, 16, 16))]
        self.maker = nn.Sequential(*layers)
        self.judge = nn.Sequential(nn.Flatten(), nn.Linear(256, 128), nn.LeakyReLU(0.2), nn.Linear(128, 1))


def duel(model: Pair, batch: tuple[Tensor, Tensor], state: cvkit.TrainState) -> Tensor:
    """Returns the sum of both losses."""
    real, score = batch[0], nn.functional.softplus
    made = model.maker(torch.randn(len(real), 16, device=real.device))
    judged = score(-model.judge(real)).mean() + score(model.judge(made.detach())).mean()
    frozen = {name: value.detach() for name, value in model.judge.named_parameters()}
    return judged + score(-torch.func.functional_call(model.judge, frozen, (made,))).mean()


def main() -> None:
    """Trains both, and writes images that the maker makes, below real ones."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=60, help="passes over the images")
    parser.add_argument("--out", type=Path, default=Path("runs/gan"), help="where images go")
    options = parser.parse_args()
    torch.manual_seed(0)

    shapes = FolderDataset(write_shapes(options.out / "shapes", per_class=300, size=16, classes=("circle", "square")))
    grey = cvkit.transforms.small_image_eval(16, channels=1, mean=(0.0,), std=(1.0,))
    data, pair = Loader(shapes, 32, transform=grey, shuffle=True), Pair()
    rivals = [torch.optim.Adam(one.parameters(), lr=1e-3, betas=(0.5, 0.999)) for one in (pair.maker, pair.judge)]
    real = next(iter(data))[0][:16]
    print(f"contrast (standard deviation within an image) of real ones: {real.std((2, 3)).mean():.2f}")
    for epochs in (1, options.epochs):
        cvkit.fit(pair, data, epochs=epochs, optimizer=rivals, step=duel, metrics=[])
        made = cvkit.predict(pair.maker, torch.randn(200, 16))
        print(f"after {epochs} epochs, of made ones: {made.std((2, 3)).mean():.2f}")
    save_image(torch.cat([real, made[:32]]), options.out / "gan.png", nrow=16)


if __name__ == "__main__":
    main()
