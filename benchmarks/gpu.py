"""Everything that only a GPU can show, by one command, in under nine minutes; no network, nothing installed but torch's own.

    python benchmarks/gpu.py --cifar10 DIR           # DIR/{train,test}/<class>/; generated images without it
    python benchmarks/gpu.py --device cpu --tiny     # the same paths on a CPU, in seconds: do they run?

It needs torch, torchvision, numpy and pillow, and takes cvkit from this checkout. Each part is a row of a Markdown table; one
that fails is a row as well, and the exit status says so. ``--parts`` chooses some of them.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import importlib.util
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
BUDGET = 520.0
"""Seconds in all; a part that would begin later is left out."""


def prepare() -> None:
    """Makes cvkit importable from the checkout, here and in processes that are started, and says what is missing.

    Raises:
        SystemExit: A library that it cannot do without.
    """
    missing = [name for name in ("torch", "torchvision", "numpy", "PIL") if importlib.util.find_spec(name) is None]
    if missing:
        raise SystemExit(
            f"not installed: {', '.join(missing)}. They come with torch's own index; no other library is needed"
        )
    paths = [str(ROOT / "src")]
    try:
        importlib.metadata.version("cvkit")
    except importlib.metadata.PackageNotFoundError:  # a checkpoint says which version has written it
        version = re.search(r'^version = "(.*)"', (ROOT / "pyproject.toml").read_text("utf-8"), re.MULTILINE)
        said = Path(tempfile.mkdtemp()) / "cvkit.dist-info"
        said.mkdir()
        number = version.group(1) if version else "0"
        (said / "METADATA").write_text(f"Metadata-Version: 2.1\nName: cvkit\nVersion: {number}\n", "utf-8")
        paths.append(str(said.parent))
    sys.path[:0] = paths
    os.environ["PYTHONPATH"] = os.pathsep.join([*paths, *filter(None, [os.environ.get("PYTHONPATH")])])
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


prepare()

import torch  # noqa: E402  cvkit has to be found first
from torch import nn  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402

import cvkit  # noqa: E402
from cvkit.callbacks import EMA, Checkpoint, GradientNorm  # noqa: E402


@dataclass
class Plan:
    """What is asked for."""

    device: str
    tiny: bool
    cifar10: Path | None
    directory: Path

    def size(self, full: int, tiny: int) -> int:
        """Returns one of two sizes."""
        return tiny if self.tiny else full

    def settle(self) -> None:
        """Waits for the device."""
        if self.device.startswith("cuda"):
            torch.cuda.synchronize()

    def images(self) -> Path:
        """Returns CIFAR-10, or generated images in its place."""
        root = self.cifar10 or self.directory / "shapes"
        if self.cifar10 is None and not root.exists():
            for seed, part in enumerate(("train", "test")):
                cvkit.data.write_shapes(root / part, per_class=self.size((2000, 400)[seed], 20), seed=seed)
        return root


def batches(transform: Any = None, count: int = 64) -> cvkit.data.Loader:
    """Returns a loader of random images in memory."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8, generator=generator)
    dataset = cvkit.data.ArrayDataset(images, torch.arange(count) % 4)
    transform = transform or cvkit.transforms.small_image_train(32)
    return cvkit.data.Loader(dataset, batch_size=16, transform=transform, shuffle=True, workers=0)


def train(device: str, directory: Path | None = None, **options: Any) -> nn.Module:
    """Trains a small network with batch norm and dropout."""
    torch.manual_seed(0)
    model = nn.Sequential(
        *(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten()),
        *(nn.Linear(128, 4),),
    )
    callbacks = [*options.pop("callbacks", []), *([Checkpoint(directory)] if directory is not None else [])]
    given = {
        "epochs": 3,
        "precision": "fp32",
        "optimizer": "momentum",
        "lr": 0.02,
        "seed": 0,
        "progress": False,
        **options,
    }
    cvkit.fit(model, batches(given.pop("transform", None)), batches(), device=device, callbacks=callbacks, **given)
    return model


def agreement(plan: Plan) -> str:
    """The device computes what the CPU does: options, presets, precisions, callbacks, saving, prediction."""
    presets = cvkit.transforms
    cases: list[dict[str, Any]] = [
        {},
        {"optimizer": "adamw", "lr": 1e-3, "schedule": "cosine", "clip_norm": 1.0},
        {"accumulate": 2, "loss": nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 1.0, 0.5]), label_smoothing=0.1)},
        {"callbacks": [EMA(), GradientNorm()]},
        {"transform": presets.small_image_train(32, erase=0.5, hue=0.1)},
        {"transform": presets.small_image_train(32, mixup=0.2, cutmix=1.0, num_classes=4), "metrics": ()},
    ]
    worst = 0.0
    for case in cases:
        weights = [
            [one.detach().float().cpu() for one in train(device, **case).parameters()]
            for device in ("cpu", plan.device)
        ]
        worst = max(worst, *(float((a - b).abs().max()) for a, b in zip(*weights, strict=True)))
    if worst > 1e-2:
        raise AssertionError(f"weights differ by {worst:.2g} from those of the CPU")
    for precision in ("bf16", "fp16"):
        model = train(plan.device, precision=precision)
        if not all(bool(torch.isfinite(one).all()) for one in model.parameters()):
            raise AssertionError(f"{precision}: weights that are not finite")
    return f"{len(cases)} runs, weights within {worst:.1e} of the CPU's; bf16 and fp16 finite"


def resume(plan: Plan) -> str:
    """Runs that are killed in the middle of a step and continued end with the same bits."""
    digests = []
    for name, kill in (("straight", 0), ("killed", 6)):
        directory = plan.directory / name
        command = [sys.executable, __file__, "--device", plan.device, "--child", str(directory)]
        if kill:
            done = subprocess.run([*command, "--kill-at", str(kill)], capture_output=True, text=True, timeout=120)
            if done.returncode != -signal.SIGKILL:
                raise AssertionError(f"the run was to be killed and ended with {done.returncode}: {done.stderr[-500:]}")
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        if done.returncode:
            raise AssertionError(f"the run failed: {done.stderr[-1000:]}")
        digests.append(done.stdout.strip().splitlines()[-1])
    if digests[0] != digests[1]:
        raise AssertionError(f"a continued run ends with other weights: {digests[1]} instead of {digests[0]}")
    return "killed at step 6, continued: the same bits"


class KillAt:
    """Ends the process without a word."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_batch_end(self, state: Any) -> None:
        """Ends it at its step."""
        if state.step == self.step:
            os.kill(os.getpid(), signal.SIGKILL)


def child(device: str, directory: Path, kill: int) -> None:
    """One run of ``resume``, in a process of its own; prints a digest of its weights."""
    import hashlib

    saver = Checkpoint(directory, every_steps=2)
    model = train(device, callbacks=[saver, *([KillAt(kill)] if kill else [])], deterministic=True, resume=True)
    digest = hashlib.sha256()
    for value in model.state_dict().values():
        digest.update(value.cpu().numpy().tobytes())
    print(digest.hexdigest())


class Waits(TorchDispatchMode):
    """Counts what makes the host wait, where torch's own debug mode is not there."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0
        self.on = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if self.on and func._schema.name in ("aten::_local_scalar_dense", "aten::masked_select"):
            frame: Any = sys._getframe(1)
            while "cvkit" not in (path := frame.f_code.co_filename) and frame.f_back is not None:
                frame = frame.f_back
            # which samples are wanted the host knows anyway; these tensors are never on a device
            self.count += not {"data", "transforms"} & set(Path(path).parts)
        return func(*args, **(kwargs or {}))


class Watch:
    """Forbids waiting, from the second batch of an epoch to its last but one: feed, step, update and hooks of others."""

    def __init__(self, cuda: bool, counter: Waits) -> None:
        self.cuda, self.counter, self.steps = cuda, counter, 0

    def on_batch_start(self, state: Any) -> None:
        """Begins, and ends before the epoch does."""
        inside = 0 < state.batch_index < len(state.train) - 1
        self.steps += inside
        self.counter.on = inside and not self.cuda
        if self.cuda:
            torch.cuda.set_sync_debug_mode("error" if inside else "default")

    def on_epoch_end(self, state: Any) -> None:
        """Allows it again."""
        self.on_fit_end(state)

    def on_fit_end(self, state: Any) -> None:
        """Allows it again, whatever has happened."""
        self.counter.on = False
        if self.cuda:
            torch.cuda.set_sync_debug_mode("default")


def waits(plan: Plan) -> str:
    """Nothing in a step waits for the device."""
    steps = 0
    cuda = plan.device.startswith("cuda")
    cases: list[dict[str, Any]] = [
        {"clip_norm": 1.0, "schedule": "onecycle", "callbacks": [EMA(), GradientNorm()]},
        {"accumulate": 2, "transform": cvkit.transforms.classification_train(32, hue=0.1)},
    ]
    cases += [{"precision": "bf16"}, {"precision": "fp16"}] if cuda else []
    for case in cases:
        counter = Waits()
        watch = Watch(cuda, counter)
        with counter if not cuda else contextlib.nullcontext():
            train(plan.device, **{**case, "callbacks": [watch, *case.get("callbacks", [])]})
        steps += watch.steps
        if counter.count:
            raise AssertionError(f"{counter.count} waits in {watch.steps} steps")
    return f"0 in {steps} steps"


def fast(plan: Plan) -> str:
    """``examples/cifar10_fast.py``."""
    sizes = [
        "--epochs",
        str(plan.size(16, 1)),
        "--batch",
        str(plan.size(512, 16)),
        "--lr",
        str(0.4 if not plan.tiny else 0.05),
    ]
    sizes += ["--width", str(plan.size(64, 8))]
    command = [sys.executable, str(ROOT / "examples" / "cifar10_fast.py"), "--device", plan.device, *sizes]
    done = subprocess.run([*command, "--data", str(plan.images())], capture_output=True, text=True, timeout=200)
    if done.returncode:
        raise AssertionError(done.stderr[-1000:])
    return done.stdout.strip().splitlines()[-1] + ("" if plan.cifar10 else " (generated images)")


def quick(plan: Plan) -> str:
    """The tutorial's quick network, 20 epochs; its own loop is said to take 170 s on a GPU."""
    transform = cvkit.transforms.small_image_train(32, padding=0, flip=0.0)
    data = cvkit.data.from_folder(plan.images(), size=32, batch_size=16, val="test", transform=transform)
    torch.manual_seed(0)
    net = cvkit.models.create("cifar_quick", num_classes=len(data.classes))
    epochs = plan.size(20, 1)
    began = time.perf_counter()
    cvkit.fit(net, data.train, epochs=epochs, optimizer="momentum", lr=0.02, device=plan.device, progress=False)
    plan.settle()
    seconds = time.perf_counter() - began
    accuracy = cvkit.evaluate(net, data.val, device=plan.device)["accuracy"]
    return f"{epochs} epochs of {len(data.train)} batches in {seconds:.1f} s, accuracy {accuracy:.3f}"


def photos(plan: Plan) -> Iterator[tuple[str, str]]:
    """ResNet at 224 from JPEG files: the device's own rate, and what of it is reached with and without a cache."""
    size, batch = plan.size(224, 32), plan.size(64, 4)
    name = "resnet50" if not plan.tiny else "resnet9"
    root = plan.directory / "photos"
    cvkit.data.write_shapes(root / "train", per_class=plan.size(700, 6), size=plan.size(320, 40), seed=0)
    model = cvkit.models.create(name, num_classes=3)
    runtime = cvkit.Runtime(plan.device)
    runtime.prepare(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    inputs = torch.randn(batch, 3, size, size, device=plan.device)
    targets = torch.randint(0, 3, (batch,), device=plan.device)

    def synthetic(steps: int) -> float:
        plan.settle()
        began = time.perf_counter()
        for _ in range(steps):
            optimizer.zero_grad()
            with runtime.autocast():
                loss = nn.functional.cross_entropy(model(inputs), targets)
            loss.backward()
            optimizer.step()
        plan.settle()
        return steps * batch / (time.perf_counter() - began)

    synthetic(plan.size(10, 1))
    device_rate = synthetic(plan.size(50, 2))
    yield f"{name} at {size}, images already on the device", f"{device_rate:,.0f} images/s"
    dataset = cvkit.data.FolderDataset(root / "train")
    for cache in ("ram", None):
        transform = cvkit.transforms.classification_train(size)
        loader = cvkit.data.Loader(
            dataset, batch_size=batch, transform=transform, shuffle=True, cache=cache, drop_last=True
        )
        times = Epochs(plan)
        cvkit.fit(model, loader, epochs=3, device=plan.device, progress=False, callbacks=[times], preflight=False)
        rate = len(loader) * batch / min(times.seconds[1:])
        yield (
            f"the same by fit, cache={cache!r}",
            f"{rate:,.0f} images/s, {rate / device_rate:.0%}; waited for data {times.waited:.0%}",
        )


class Epochs:
    """Takes the time of each epoch, and how much of the last one went into waiting for data."""

    def __init__(self, plan: Plan) -> None:
        self.plan, self.seconds, self.waited = plan, list[float](), 0.0

    def on_epoch_end(self, state: Any) -> None:
        """Takes it, once the device is done."""
        self.plan.settle()
        self.seconds.append(state.epoch_seconds)
        self.waited = state.data_seconds / state.epoch_seconds


def step_cost(plan: Plan) -> str:
    """Microseconds that ``fit`` adds to a step of the hand-written loop, in wall time, on a small network."""
    count = plan.size(2000, 40)
    items = [
        (torch.randn(32, 32, device=plan.device), torch.randint(0, 10, (32,), device=plan.device)) for _ in range(16)
    ]
    data = [items[index % 16] for index in range(count)]
    added = []
    for _ in range(plan.size(7, 2)):
        spent = {}
        for kind in ("hand", "fit"):
            torch.manual_seed(0)
            model = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 10)).to(plan.device)
            optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, fused=True)
            plan.settle()
            began = time.perf_counter()
            if kind == "fit":
                options: dict[str, Any] = {
                    "progress": False,
                    "preflight": False,
                    "precision": "fp32",
                    "device": plan.device,
                }
                cvkit.fit(model, data, epochs=1, optimizer=optimizer, **options)
            else:
                hand(model, optimizer, data)
            plan.settle()
            spent[kind] = time.perf_counter() - began
        added.append((spent["fit"] - spent["hand"]) / count * 1e6)
    return f"{statistics.median(added):.1f} µs (from {min(added):.1f} to {max(added):.1f}), one call included"


def hand(model: nn.Module, optimizer: torch.optim.Optimizer, data: list[Any]) -> None:
    """The best loop by hand: it files losses and right answers on the device and reads them once."""
    losses, right = [], []
    for inputs, targets in data:
        optimizer.zero_grad(set_to_none=True)
        outputs = model(inputs)
        loss = nn.functional.cross_entropy(outputs, targets)
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
        right.append((outputs.detach().argmax(1) == targets).sum())
    float(torch.stack(losses).mean() + torch.stack(right).sum())


def memory(plan: Plan) -> str:
    """Peak memory of a ResNet-50 at 224, and with blocks that compute twice."""
    name, size, batch = ("resnet50", 224, 64) if not plan.tiny else ("resnet9", 32, 4)
    if not plan.device.startswith("cuda"):
        model = cvkit.models.create(name, num_classes=3)
        paths = cvkit.models.checkpoint_blocks(model)
        train_once(plan, model, size, batch)
        return f"not measured on a CPU ({len(paths)} blocks of {name} computed twice)"
    found = []
    for thrifty in (False, True):
        model = cvkit.models.create(name, num_classes=3)
        if thrifty:
            cvkit.models.checkpoint_blocks(model)
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        train_once(plan, model, size, batch)
        found.append(torch.cuda.max_memory_allocated() / 2**20)
        del model
    return f"{found[0]:,.0f} MiB; with checkpoint_blocks {found[1]:,.0f} MiB"


def train_once(plan: Plan, model: nn.Module, size: int, batch: int) -> None:
    """Three steps."""
    data = [(torch.randn(batch, 3, size, size), torch.arange(batch) % 3)] * 3
    cvkit.fit(model, data, epochs=1, device=plan.device, progress=False, preflight=False)


PARTS: dict[str, tuple[str, Callable[[Plan], Any]]] = {
    "agreement": ("computes what the CPU computes", agreement),
    "resume": ("exact resume after a kill, deterministic kernels", resume),
    "waits": ("synchronisations in a step", waits),
    "step": ("µs a step that fit adds", step_cost),
    "memory": ("peak memory, ResNet-50 at 224, batch 64", memory),
    "quick": ("cifar_quick, batches of 16", quick),
    "fast": ("examples/cifar10_fast.py", fast),
    "photos": ("ResNet-50 at 224", photos),
}
"""What is checked and measured, in order: title and function; a function gives one row's text, or rows."""


def measure(plan: Plan, parts: list[str]) -> int:
    """Prints the table, row by row.

    Returns:
        How many parts have failed.
    """
    cuda = plan.device.startswith("cuda")
    card = torch.cuda.get_device_name(torch.device(plan.device)) if cuda else f"CPU, {torch.get_num_threads()} threads"
    print(f"{card}, torch {torch.__version__}, CUDA {torch.version.cuda}\n\n| | |\n| --- | --- |", flush=True)
    began, failed = time.perf_counter(), 0
    for name in parts:
        title, part = PARTS[name]
        if time.perf_counter() - began > BUDGET:
            print(f"| {title} | left out: {BUDGET:.0f} s are over |", flush=True)
            continue
        start = time.perf_counter()
        try:
            made = part(plan)
            for label, text in [(title, made)] if isinstance(made, str) else made:
                print(f"| {label} | {text} |", flush=True)
        except Exception as error:  # the others still have something to say; it is shown, and counted
            failed += 1
            traceback.print_exc()
            print(
                f"| {title} | **failed**: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''} |",
                flush=True,
            )
        print(f"{name}: {time.perf_counter() - start:.1f} s", file=sys.stderr, flush=True)
    print(f"\n{time.perf_counter() - began:.0f} s in all, {failed} failed")
    return failed


def main(arguments: list[str] | None = None) -> int:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--device", default="cuda", help="cuda (the default), cuda:1, cpu")
    parser.add_argument("--tiny", action="store_true", help="sizes that only show that everything runs")
    parser.add_argument("--cifar10", type=Path, help="CIFAR-10 as images; generated ones by default")
    parser.add_argument("--parts", default=",".join(PARTS), help=f"some of {','.join(PARTS)}")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--kill-at", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.device.startswith("cuda") and not torch.cuda.is_available():
        raise SystemExit(f"torch {torch.__version__} sees no CUDA device; --device cpu --tiny tries the script itself")
    if options.child is not None:
        child(options.device, options.child, options.kill_at)
        return 0
    parts = options.parts.split(",")
    if unknown := sorted(set(parts) - set(PARTS)):
        raise SystemExit(f"--parts got {', '.join(unknown)}; expected some of {','.join(PARTS)}")
    with tempfile.TemporaryDirectory() as directory:
        return 1 if measure(Plan(options.device, options.tiny, options.cifar10, Path(directory)), parts) else 0


if __name__ == "__main__":
    sys.exit(main())
