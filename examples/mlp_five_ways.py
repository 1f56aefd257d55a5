"""A network five ways: tensors by hand, autograd, a module, a sequence and ``fit`` give the same losses.

Each way takes some work off your hands, and changes nothing else; ``fit`` could save, resume and validate as well.
"""

import torch
from torch import Tensor, nn

import cvkit

EPOCHS, LR = 100, 1.0


class TwoLayers(nn.Module):
    """Two matrices with a ReLU in between: ``(N, 100)`` to ``(N, 10)``."""

    def __init__(self, w1: Tensor, w2: Tensor) -> None:
        super().__init__()
        self.w1, self.w2 = nn.Parameter(w1.clone()), nn.Parameter(w2.clone())

    def forward(self, x: Tensor) -> Tensor:
        """Computes the outputs."""
        return (x @ self.w1.T).relu() @ self.w2.T


def main() -> None:
    """Trains the same network five times, from the same weights."""
    torch.manual_seed(0)
    x, y = torch.randn(64, 100), torch.randn(64, 10)
    sequential = nn.Sequential(nn.Linear(100, 32, bias=False), nn.ReLU(), nn.Linear(32, 10, bias=False))
    start = [w.detach().clone() for w in sequential.parameters()]
    losses: dict[str, list[float]] = {"tensors": [], "autograd": [], "nn.Module": [], "nn.Sequential": []}
    (w1, w2), weights = start, [w.clone().requires_grad_() for w in start]
    for _ in range(EPOCHS):  # the gradients are written out: the chain rule from the end to the beginning
        error = (hidden := x @ w1.T).relu() @ w2.T - y
        losses["tensors"].append(error.square().mean().item())
        by_output = 2 * error / error.numel()
        by_hidden = (by_output @ w2) * (hidden > 0)
        w1, w2 = w1 - LR * by_hidden.T @ x, w2 - LR * by_output.T @ hidden.relu()
    for _ in range(EPOCHS):  # autograd finds them
        loss = ((x @ weights[0].T).relu() @ weights[1].T - y).square().mean()
        losses["autograd"].append(loss.item())
        steps = zip(weights, torch.autograd.grad(loss, weights))
        weights = [(w - LR * by).detach().requires_grad_() for w, by in steps]
    for name, model in (("nn.Module", TwoLayers(*start)), ("nn.Sequential", sequential)):
        optimizer = torch.optim.SGD(model.parameters(), lr=LR)
        for _ in range(EPOCHS):  # the tutorials' loop
            optimizer.zero_grad()
            loss = nn.functional.mse_loss(model(x), y)
            loss.backward()
            optimizer.step()
            losses[name].append(loss.item())
    result = cvkit.fit(TwoLayers(*start), [(x, y)], epochs=EPOCHS, loss="mse", optimizer="sgd", lr=LR, progress=False)
    for name, values in (losses | {"fit": result.history["train_loss"]}).items():
        gap = (torch.tensor(values) - torch.tensor(losses["tensors"])).abs().max()
        print(f"{name:14} loss {values[0]:.6f}, {values[9]:.6f}, … {values[-1]:.6f}, at most {gap:.0e} from the first")


if __name__ == "__main__":
    main()
