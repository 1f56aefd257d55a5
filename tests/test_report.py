"""``python -m cvkit.report`` says what a bug report needs, and nothing that is nobody's business."""

import multiprocessing
import os
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import PIL
import torch

from cvkit import report


def test_the_command_prints_a_line_for_each_thing_that_is_asked_for():
    secret = {"SOME_TOKEN": "s3cret-value", "OMP_NUM_THREADS": "1", "WORLD_SIZE": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "cvkit.report"], capture_output=True, text=True, env={**os.environ, **secret}
    )
    assert done.returncode == 0
    assert done.stderr == ""
    said = dict(line.split(": ", 1) for line in done.stdout.splitlines())
    assert list(said) == list(report.report())
    assert said["Python"].startswith(platform.python_version())
    assert (said["cvkit"], said["torch"]) == (version("cvkit"), torch.__version__)
    assert (said["numpy"], said["pillow"]) == (np.__version__, PIL.__version__)
    assert said["torchvision"] == version("torchvision")
    assert all(f"{name} " in said["pillow's codecs"] for name in ("libjpeg", "zlib", "littlecms"))
    assert "OMP_NUM_THREADS=1" in said["environment"]
    assert "WORLD_SIZE=1" in said["environment"]
    for private in ("s3cret-value", "SOME_TOKEN", str(Path.home()) + os.sep, sys.prefix):
        assert private not in done.stdout


def test_asking_for_the_start_method_does_not_settle_it():
    program = (
        "import multiprocessing; from cvkit.report import report; report(); multiprocessing.set_start_method('spawn')"
    )
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0


def test_what_is_missing_is_said(monkeypatch):
    monkeypatch.setattr(report, "EXTRAS", ("no-such-package",))
    monkeypatch.setattr(report, "PACKAGES", ("no-such-package",))
    monkeypatch.setattr(report, "VARIABLES", ())
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.setattr(multiprocessing, "get_start_method", lambda allow_none: None)
    found = report.report()
    assert found["no-such-package"] == "not installed"
    assert (found["extras"], found["environment"], found["CUDA"]) == ("none", "none", "not available")
    assert found["start method"] == f"{multiprocessing.get_all_start_methods()[0]} (default)"


def test_a_gpu_is_named_with_its_memory(monkeypatch):
    class Card:
        name, total_memory, major, minor = "Example GPU", 8 * 2**30, 9, 0

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: Card)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.backends.cudnn, "version", lambda: 91000)
    assert report.report()["CUDA"] == "13.0, cuDNN 91000: Example GPU (8.0 GiB, 9.0)"
