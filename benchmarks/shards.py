"""The same images from a folder, from cvkit's shards, and by webdataset and litdata, side by side in one run.

Everybody decodes with ``cvkit.data.decode`` and runs the same per-image function, in as many worker processes, so that what
differs is where samples lie and in which order they come. In each round every contender makes its dataset and iterates one
epoch of it; the order of contenders changes with the round; shown are medians with the 10th and 90th percentile.

    python benchmarks/shards.py local            # needs webdataset and litdata for their rows
    python benchmarks/shards.py remote           # a server on this machine that answers after 20 ms; webdataset needs curl
    python benchmarks/shards.py scale            # start-up, first batch and memory by the number of samples
"""

from __future__ import annotations

import argparse
import http.server
import importlib.util
import io
import os
import random
import statistics
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader

from cvkit.data import FolderDataset, Loader, ShardDataset, decode, write_shards

sys.path.insert(0, str(Path(__file__).parents[1]))

WORKERS, BATCH, SIDE = 2, 64, 64


def per_image(image: Image.Image) -> torch.Tensor:
    """What is done to each image, by everybody: uint8 ``(3, 64, 64)``."""
    resized = image.resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(resized)).permute(2, 0, 1)


# --- contenders: each returns batches of an epoch


def ours(dataset: Any, shuffle: Any) -> Iterable[Any]:
    return Loader(
        dataset, BATCH, transform=per_image, shuffle=shuffle, workers=WORKERS, cache=None, start_method="fork"
    )


def webdataset(urls: list[str], count: int) -> Iterable[Any]:
    import webdataset as wds

    data = (
        wds.WebDataset(urls, shardshuffle=100, empty_check=False)
        .shuffle(1_000)
        .to_tuple("jpg", "cls")
        .map_tuple(lambda data: per_image(decode(data)), int)
        .batched(BATCH)
    )
    return DataLoader(data, batch_size=None, num_workers=WORKERS, multiprocessing_context="fork")


def litdata_sample(index: tuple[str, int]) -> dict[str, Any]:
    return {"jpg": Path(index[0]).read_bytes(), "cls": index[1]}


def litdata(folder: Path) -> Iterable[Any]:
    import litdata as ld

    class Decoded(ld.StreamingDataset):
        def __getitem__(self, index: Any) -> Any:
            sample = super().__getitem__(index)
            return per_image(decode(bytes(sample["jpg"]))), sample["cls"]

    data = Decoded(str(folder), shuffle=True)
    return ld.StreamingDataLoader(data, batch_size=BATCH, num_workers=WORKERS, multiprocessing_context="fork")


# --- timing


def timed(make: Callable[[], Iterable[Any]]) -> tuple[float, float, int]:
    """Returns the seconds to the first batch, those of all, and the number of samples."""
    start = time.perf_counter()
    first, samples = None, 0
    for _, targets in make():
        first = first if first is not None else time.perf_counter() - start
        samples += len(targets)
    return first or 0.0, time.perf_counter() - start, samples


def spread(values: list[float], form: str) -> str:
    low, high = np.percentile(values, [10, 90])
    return f"{form.format(statistics.median(values))} ({form.format(low)} … {form.format(high)})"


def compare(title: str, contenders: dict[str, Callable[[], Iterable[Any]]], rounds: int, count: int) -> None:
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in contenders}
    order = list(contenders)
    for number in range(rounds + 1):
        random.Random(number).shuffle(order)
        for name in order:
            first, whole, samples = timed(contenders[name])
            if samples != count:
                print(f"{name}: {samples} samples instead of {count}")
            if number:
                found[name].append((first, whole))
    print(f"\n**{title}**, {count:,} images, {rounds} rounds\n")
    print("| | samples a second | seconds to the first batch |\n| --- | --- | --- |")
    for name, values in found.items():
        speed = spread([count / whole for _, whole in values], "{:,.0f}")
        print(f"| {name} | {speed} | {spread([first for first, _ in values], '{:.3f}')} |", flush=True)


def local(root: Path, count: int, rounds: int) -> None:
    folder = FolderDataset(root / "folder")
    urls = sorted(map(str, (root / "shards").glob("*.tar")))
    contenders: dict[str, Callable[[], Iterable[Any]]] = {
        "folder": lambda: ours(FolderDataset(root / "folder"), True),
        "ShardDataset, shuffle=True": lambda: ours(ShardDataset(urls), True),
        'ShardDataset, shuffle="blocks"': lambda: ours(ShardDataset(urls), "blocks"),
    }
    if importlib.util.find_spec("webdataset"):
        contenders["webdataset, buffer of 1,000"] = lambda: webdataset(urls, count)
    if importlib.util.find_spec("litdata"):
        import litdata as ld

        inputs = [(str(folder.root / path), target) for path, target in zip(folder.paths, folder.targets, strict=True)]
        ld.optimize(litdata_sample, inputs, str(root / "litdata"), chunk_size=500, num_workers=1, verbose=False)
        contenders["litdata, shuffle=True"] = lambda: litdata(root / "litdata")
    compare("From a local disk", contenders, rounds, count)


# --- a server with latency


def serve(root: str, latency: float) -> None:
    """Serves parts of files of a folder, each answer after so many seconds; prints its port."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *arguments: Any) -> None:
            """Says nothing."""

        def do_HEAD(self) -> None:
            self.do_GET(body=False)

        def do_GET(self, body: bool = True) -> None:
            time.sleep(latency)
            path = Path(root) / self.path.lstrip("/")
            if not path.is_file():
                self.send_response(404)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            size, span = path.stat().st_size, self.headers.get("Range")
            first, last = 0, size - 1
            if span:
                begin, _, end = span.removeprefix("bytes=").partition("-")
                first, last = int(begin), min(int(end) if end else last, last)
            self.send_response(206 if span else 200)
            self.send_header("Accept-Ranges", "bytes")
            self.send_header("Content-Length", str(last - first + 1))
            if span:
                self.send_header("Content-Range", f"bytes {first}-{last}/{size}")
            self.end_headers()
            if body:
                with path.open("rb") as file:
                    file.seek(first)
                    self.wfile.write(file.read(last - first + 1))

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    print(server.server_port, flush=True)
    threading.Thread(target=server.serve_forever).start()


def remote(root: Path, count: int, rounds: int) -> None:
    here, files = str(Path(__file__).parent), str(root / "shards")
    code = f"import sys; sys.path.insert(0, {here!r}); import shards; shards.serve({files!r}, 0.02)"
    server = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    port = server.stdout.readline().strip() if server.stdout is not None else ""
    names = sorted(path.name for path in (root / "shards").glob("*.tar"))
    urls = [f"http://127.0.0.1:{port}/{name}" for name in names]
    caches = iter(range(10**6))

    def cold(shuffle: Any) -> Iterable[Any]:
        return ours(ShardDataset(urls, cache_dir=root / f"cache{next(caches)}"), shuffle)

    ours_warm = root / "warm"
    contenders: dict[str, Callable[[], Iterable[Any]]] = {
        'ShardDataset, shuffle="blocks", nothing on disk yet': lambda: cold("blocks"),
        "ShardDataset, shuffle=True, nothing on disk yet": lambda: cold(True),
        'ShardDataset, shuffle="blocks", all on disk': lambda: ours(ShardDataset(urls, cache_dir=ours_warm), "blocks"),
    }
    if importlib.util.find_spec("webdataset"):
        contenders["webdataset, buffer of 1,000"] = lambda: webdataset(urls, count)
    try:
        compare("From a server that answers after 20 ms", contenders, rounds, count)
    finally:
        server.kill()


# --- scale


def write_many(path: Path, members: int) -> None:
    """Writes a tar file of so many members, two to a sample, of tiny images."""
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4)).save(buffer, "png")
    with path.open("wb") as file:
        for number in range(members // 2):
            for ending, data in (("png", buffer.getvalue()), ("cls", str(number % 1_000).encode())):
                info = tarfile.TarInfo(f"{number:09d}.{ending}")
                info.size = len(data)
                file.write(info.tobuf(tarfile.USTAR_FORMAT) + data + bytes(-len(data) % 512))
        file.write(bytes(10_240))


class Counted:
    """As many samples as one likes, which are nowhere."""

    deterministic = True

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return torch.full((3, 4, 4), index % 256, dtype=torch.uint8), index


MEASURE = """
import sys, time
sys.path.insert(0, {here!r})
import shards
from cvkit.data import Loader, ShardDataset

class Private:
    deterministic = True
    def __init__(self, dataset): self.dataset, self.block_ends = dataset, getattr(dataset, "block_ends", None)
    def __len__(self): return len(self.dataset)
    def __getitem__(self, index):
        self.dataset[index]
        if index % 32:  # the system takes long to say it
            return shards.torch.zeros(1), 0
        lines = open("/proc/self/smaps_rollup").read().splitlines()
        return shards.torch.zeros(1), sum(int(line.split()[1]) for line in lines if line.startswith("Private_Dirty"))

start = time.perf_counter()
dataset = {dataset}
made = time.perf_counter()
loader = Loader(Private(dataset), 64, shuffle={shuffle!r}, workers=2, cache=None, start_method="fork")
batches = iter(loader)
_, memory = next(batches)
first = time.perf_counter()
for _ in range(100):
    _, said = next(batches, (None, memory))
    memory = shards.torch.maximum(memory.max(), said.max())
print((made - start) * 1e3, (first - made) * 1e3, float(memory.float().max()) / 1024)
"""


def scale(root: Path) -> None:
    print("\n| samples | order | dataset, ms | first batch, ms | memory of a worker, MiB |\n" + "| --- " * 5 + "|")
    cases = []
    for members in (10**4, 10**5, 10**6):
        path = root / f"many-{members}.tar"
        write_many(path, members)
        start = time.perf_counter()
        ShardDataset(path)
        built = (
            f"{members // 2:,} in a shard of {members:,} members (index built in {time.perf_counter() - start:.1f} s)"
        )
        cases += [(built, kind, f"ShardDataset({str(path)!r})") for kind in ("computed", "blocks")]
    cases += [
        (f"{count:,}, simulated", kind, f"shards.Counted({count})")
        for count in (10**6, 10**9)
        for kind in ("computed", "blocks")
    ]
    for name, kind, dataset in cases:
        code = MEASURE.format(here=str(Path(__file__).parent), dataset=dataset, shuffle=kind)
        run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        made, first, memory = map(float, run.stdout.split())
        print(f"| {name} | {kind} | {made:.1f} | {first:.0f} | {memory:.0f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=["local", "remote", "scale"])
    parser.add_argument("--count", type=int, default=4_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--per-shard", type=int, default=250)
    options = parser.parse_args()
    torch.set_num_threads(1)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        if options.part == "scale":
            scale(root)
            return
        from benchmarks.data import write_photos

        write_photos(root / "folder", options.count, 256, 192)
        write_shards(FolderDataset(root / "folder"), root / "shards", samples_per_shard=options.per_shard)
        {"local": local, "remote": remote}[options.part](root, options.count, options.rounds)


if __name__ == "__main__":
    main()
