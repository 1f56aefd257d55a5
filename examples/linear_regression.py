"""Linear regression on fifteen points: what ``fit`` finds, and the closed form.

The smallest model there is, ``nn.Linear(1, 1)``, goes through the same ``fit`` as any other: gradient descent on the mean
squared error. For a straight line the best answer is known, so the two can be compared: they agree to four places.
"""

import argparse
from pathlib import Path

import torch
from torch import nn

import cvkit
from cvkit.data import ArrayDataset, Loader

X = [3.3, 4.4, 5.5, 6.71, 6.93, 4.168, 9.779, 6.182, 7.59, 2.167, 7.042, 10.791, 5.313, 7.997, 3.1]
Y = [1.7, 2.76, 2.09, 3.19, 1.694, 1.573, 3.366, 2.596, 2.53, 1.221, 2.827, 3.465, 1.65, 2.904, 1.3]


def main() -> None:
    """Finds the line twice, and draws it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/linear_regression"), help="where the image goes")
    options = parser.parse_args()
    torch.manual_seed(0)

    inputs, targets = torch.tensor(X)[:, None], torch.tensor(Y)[:, None]  # (15, 1) each
    train = Loader(ArrayDataset(inputs, targets), batch_size=len(inputs))
    model = nn.Linear(1, 1)
    result = cvkit.fit(model, train, epochs=600, loss="mse", optimizer="momentum", lr=0.02, progress=False)
    slope, intercept = model.weight.item(), model.bias.item()
    print(f"fit:         y = {slope:.4f} x + {intercept:.4f}, loss {result.history[-1]['train_loss']:.4f}")

    exact = torch.linalg.lstsq(torch.cat([inputs, torch.ones_like(inputs)], 1), targets).solution.flatten().tolist()
    print(f"closed form: y = {exact[0]:.4f} x + {exact[1]:.4f}")
    print(f"largest difference: {max(abs(slope - exact[0]), abs(intercept - exact[1])):.1e}")
    draw(options.out, slope, intercept)


def draw(out: Path, slope: float, intercept: float) -> None:
    """Draws the points and the line."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        print('no image: matplotlib is missing, pip install "cvkit[plots]"')
        return
    figure = Figure(figsize=(6, 4))
    axes = figure.subplots()
    axes.plot(X, Y, "o", label="fifteen points")
    axes.plot([2, 11], [2 * slope + intercept, 11 * slope + intercept], label=f"y = {slope:.3f} x + {intercept:.3f}")
    axes.legend()
    out.mkdir(parents=True, exist_ok=True)
    figure.savefig(out / "linear_regression.png")


if __name__ == "__main__":
    main()
