"""Makes the images of tensorboard.rst: a run, TensorBoard over it on a port of this machine, and Chromium without a window.

    python docs/make_tensorboard_pictures.py

Each is written to docs/_static/tensorboard as PNG of at most 64 colours. Needs tensorboard and Chromium.
"""

import argparse
import contextlib
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from PIL import Image

import cvkit
from cvkit.callbacks import TensorBoard

PLACE = Path(__file__).parent / "_static" / "tensorboard"
WIDTH = 1300

# page: what follows the address, height of the window, the part that is kept (left, top, right, bottom)
PAGES = {
    "scalars": ("#scalars&tagFilter=accuracy%7Closs%7Cgradient", 1000, (0, 0, WIDTH, 710)),
    "images": ("#images&tagFilter=predictions", 1000, (0, 0, WIDTH, 1000)),
    "confusion": ("#images&tagFilter=confusion", 700, (0, 0, WIDTH, 680)),
    "graph": ("#graphs", 1000, (0, 0, WIDTH, 900)),
    "histograms": ("#histograms", 1000, (0, 0, WIDTH, 900)),
    "projector": ("#projector", 1000, (0, 0, WIDTH, 1000)),
    "hparams": ("#hparams", 600, (0, 0, WIDTH, 500)),
    "curves": ("#pr_curves", 800, (0, 0, WIDTH, 750)),
    "text": ("#text", 1000, (0, 0, WIDTH, 900)),
}


def train(root: Path) -> None:
    """Trains twice on generated images, with everything on."""
    cvkit.data.write_shapes(root / "data/train", per_class=200, seed=0)
    cvkit.data.write_shapes(root / "data/val", per_class=50, seed=1)
    for lr in (1e-3, 2e-3):
        data = cvkit.data.from_folder(root / "data", size=32, batch_size=32)
        torch.manual_seed(0)
        model = cvkit.models.create("resnet9", num_classes=3, width=8)
        board = TensorBoard(
            root / f"runs/lr{lr}",
            every_steps=5,
            histograms=True,
            graph=True,
            images=16,
            embeddings=150,
            hparams={"lr": lr, "model": "resnet9"},
            figures=True,
        )
        cvkit.fit(model, data.train, data.val, epochs=6, lr=lr, callbacks=[board], seed=0)


@contextlib.contextmanager
def served(logs: Path):
    """TensorBoard over a directory; yields its address."""
    said = logs.parent / "said.txt"
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", logs.name, "--port", "0", "--host", "127.0.0.1"]
    with said.open("w") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, cwd=logs.parent)
    try:
        while not (found := re.search(r"http://127\.0\.0\.1:\d+", said.read_text())):
            if process.poll() is not None:
                raise RuntimeError(said.read_text())
            time.sleep(0.2)
        time.sleep(5)  # until it has read everything
        yield found[0]
    finally:
        process.terminate()
        process.wait()


def shoot(chromium: str, address: str, height: int, path: Path) -> None:
    """Writes what a window of this height shows."""
    with tempfile.TemporaryDirectory() as profile:
        options = [
            "--headless",
            "--no-sandbox",
            "--use-angle=swiftshader",  # the projector draws with WebGL
            "--enable-unsafe-swiftshader",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--no-first-run",
            f"--user-data-dir={profile}",
            f"--window-size={WIDTH},{height}",
            "--virtual-time-budget=20000",
            f"--screenshot={path}",
        ]
        subprocess.run([chromium, *options, address], check=True, capture_output=True, timeout=180)


def main() -> None:
    """Makes all of them, or those that are named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pages", nargs="*", help=", ".join(PAGES))
    pages = parser.parse_args().pages or list(PAGES)
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        raise SystemExit("Chromium is not there")
    PLACE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        train(root)
        with served(root / "runs") as address:
            for page in pages:
                where, height, part = PAGES[page]
                shot = root / "shot.png"
                shoot(chromium, f"{address}/{where}", height, shot)
                image = Image.open(shot).convert("RGB").crop(part)
                image.quantize(64, dither=Image.Dither.NONE).save(PLACE / f"{page}.png", optimize=True)
                print(f"{page}: {(PLACE / f'{page}.png').stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
