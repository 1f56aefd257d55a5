"""Trains by the options that are given, on as many ranks as started it, and writes what every rank has come to.

program.py OUTPUT OPTIONS_AS_JSON
"""

import hashlib
import json
import os
import signal
import sys
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

import cvkit
from cvkit.callbacks import EMA, Checkpoint, EarlyStopping

RANK = int(os.environ.get("RANK", "0"))


class Net(nn.Module):
    def __init__(self, norm, dropout):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.norm = nn.BatchNorm2d(4) if norm else nn.Identity()
        self.drop = nn.Dropout(0.5 if dropout else 0.0)
        self.head = nn.Linear(4 * 36, 3)

    def forward(self, images):
        maps = self.norm(self.conv(images.to(self.conv.weight.dtype))).relu()
        return self.head(self.drop(maps.view(len(images), -1)))  # a view of no samples at all is refused by torch


class Act(cvkit.Callback):
    """Does to one rank at one step what the options say."""

    def __init__(self, rank, step, what):
        self.rank, self.step, self.what = rank, step, what

    def on_batch_end(self, state):
        if self.rank != RANK or state.step != self.step:
            return
        if self.what == "stop":
            state.request_stop("enough")
        elif self.what == "raise":
            raise ValueError("the disk of this rank is on fire")
        else:
            os.kill(os.getpid(), getattr(signal, self.what))


def loss_of(options):
    if options.get("loss") == "class weights":
        return nn.CrossEntropyLoss(weight=torch.tensor([1.0, 5.0, 0.2], dtype=torch.float64))
    if options.get("loss") == "ignore_index":
        return nn.CrossEntropyLoss(ignore_index=1)
    if options.get("loss") == "sum":
        return nn.CrossEntropyLoss(reduction="sum")
    return "cross_entropy"


def loaders(options):
    generator = torch.Generator().manual_seed(1)
    samples, batch = options.get("samples", 25), options.get("batch", 8)
    images = torch.randint(0, 256, (samples + 7, 1, 8, 8), generator=generator, dtype=torch.uint8)
    targets = torch.arange(samples + 7) % 3
    kind = options.get("data", "own")
    if kind != "own":
        sets = [TensorDataset(images[part] / 255, targets[part]) for part in (slice(samples), slice(samples, None))]
        size = int(os.environ.get("WORLD_SIZE", "1"))
        sampler = DistributedSampler(sets[0], size, RANK) if kind == "sampler" else None
        per = batch // size if sampler else batch
        return DataLoader(sets[0], per, shuffle=sampler is None, sampler=sampler), DataLoader(sets[1], 4)
    mixed = {"mixup": 0.4, "cutmix": 0.7, "num_classes": 3, "erase": 0.5} if options.get("mixup") else {}
    train = cvkit.transforms.digits_train(8, padding=1, **mixed)
    val = cvkit.transforms.digits_eval(8)
    first = cvkit.data.ArrayDataset(images[:samples], targets[:samples])
    second = cvkit.data.ArrayDataset(images[samples:], targets[samples:])
    return (
        cvkit.data.Loader(first, batch, transform=train, shuffle=True, workers=0),
        cvkit.data.Loader(second, 4, transform=val, workers=0),
    )


def digest(model):
    return hashlib.sha256(b"".join(one.numpy().tobytes() for one in model.state_dict().values())).hexdigest()


class Digests(cvkit.Callback):
    def __init__(self):
        self.seen = []

    def on_epoch_end(self, state):
        self.seen.append(digest(state.model))


def main():
    output, options = Path(sys.argv[1]), json.loads(sys.argv[2])
    if options.get("only") is not None and options["only"] != RANK:
        return
    torch.manual_seed(3 + RANK)  # on purpose: rank 0 decides
    dtype = getattr(torch, options.get("dtype", "float64"))
    model = Net(options.get("norm", False), options.get("dropout", False)).to(dtype)
    train, val = loaders(options)
    digests = Digests()
    callbacks = [digests]
    if options.get("ema"):
        callbacks.append(EMA(0.9))
    if options.get("early"):
        callbacks.append(EarlyStopping("val_loss", patience=0))
    if "act" in options:
        callbacks.append(Act(*options["act"]))
    if "directory" in options:
        callbacks.append(Checkpoint(options["directory"], every_steps=1))
    result = cvkit.fit(
        model,
        train,
        val,
        epochs=options.get("epochs", 2),
        loss=loss_of(options),
        optimizer="momentum",
        lr=0.05,
        schedule=options.get("schedule"),
        accumulate=options.get("accumulate", 1),
        clip_norm=options.get("clip"),
        callbacks=callbacks,
        resume=options.get("resume", False),
        progress=False,
        device="cpu",
    )
    again = cvkit.evaluate(result.model, val, device="cpu")
    torch.save(
        {
            "weights": result.model.state_dict(),
            "history": [dict(row) for row in result.history.rows],
            "evaluate": again,
            "digests": digests.seen,
            "stop": result.stop_reason,
            "steps": result.steps,
            "torch": torch.get_rng_state(),
        },
        output.with_name(f"{output.name}-{RANK}.pt"),
    )


if __name__ == "__main__":
    main()
