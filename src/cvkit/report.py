"""``python -m cvkit.report``: what a bug report needs to know of the machine.

It prints versions, the system, memory, devices and the few environment variables that change how training runs. It prints
no path, no user's or machine's name, and no other variable.
"""

from __future__ import annotations

import multiprocessing
import os
import platform
import sys
from importlib import metadata

import torch
from PIL import features

__all__ = ["main", "report"]

PACKAGES = ("cvkit", "torch", "torchvision", "numpy", "pillow", "tensorboardX", "tqdm")
EXTRAS = ("matplotlib", "safetensors", "onnx", "onnxruntime", "onnxscript", "tensorboard", "timm", "torchmetrics")
CODECS = {"libjpeg": "jpg", "zlib": "zlib", "littlecms": "littlecms2", "libwebp": "webp", "libtiff": "libtiff"}
VARIABLES = (
    *("OMP_NUM_THREADS", "MKL_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "WORLD_SIZE", "RANK", "LOCAL_RANK"),
    *("CUBLAS_WORKSPACE_CONFIG", "PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ENABLE_MPS_FALLBACK"),
)
_GIB = 2**30


def report() -> dict[str, str]:
    """Returns what is known of this machine, by name, in the order in which it is printed."""
    lines = {"Python": f"{platform.python_version()} ({platform.python_implementation()})"}
    lines |= {name: _version(name) or "not installed" for name in PACKAGES}
    lines["torch"] = str(torch.__version__)  # tells the build too: +cpu, +cu130
    lines["pillow's codecs"] = ", ".join(f"{name} {_codec(code)}" for name, code in CODECS.items())
    lines["extras"] = ", ".join(f"{name} {_version(name)}" for name in EXTRAS if _version(name)) or "none"
    lines["system"] = f"{platform.system()} {platform.release()}, {platform.machine()}"
    lines["CPU"] = f"{_cores()} of {os.cpu_count()} cores, {torch.get_num_threads()} threads, {_capability()}"
    lines["memory"] = _memory()
    lines["CUDA"] = _cuda()
    lines["MPS"] = "available" if torch.backends.mps.is_available() else "not available"
    lines["start method"] = _start_method()
    lines["environment"] = ", ".join(f"{name}={os.environ[name]}" for name in VARIABLES if name in os.environ) or "none"
    return lines


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _codec(name: str) -> str:
    if not features.check(name):
        return "missing"
    if name == "jpg" and features.check_feature("libjpeg_turbo"):
        return f"turbo {features.version('libjpeg_turbo')}"
    return features.version(name) or "present"


def _cores() -> int:
    """Returns how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _capability() -> str:
    return str(torch.backends.cpu.get_cpu_capability())


def _memory() -> str:
    """Returns how much memory the machine has; Python does not tell it on Windows."""
    if not hasattr(os, "sysconf") or "SC_PHYS_PAGES" not in os.sysconf_names:
        return "not known"
    return f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / _GIB:.1f} GiB"


def _cuda() -> str:
    if not torch.cuda.is_available():
        return f"not available (torch built for CUDA {torch.version.cuda})" if torch.version.cuda else "not available"
    found = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    devices = [f"{one.name} ({one.total_memory / _GIB:.1f} GiB, {one.major}.{one.minor})" for one in found]
    cudnn = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
    return f"{torch.version.cuda}, cuDNN {cudnn}: {', '.join(devices)}"


def _start_method() -> str:
    """Returns how worker processes start; asking must not settle it for the rest of the program."""
    chosen = multiprocessing.get_start_method(allow_none=True)
    return chosen or f"{multiprocessing.get_all_start_methods()[0]} (default)"


def main() -> None:
    """Prints the report."""
    sys.stdout.write("".join(f"{name}: {value}\n" for name, value in report().items()))


if __name__ == "__main__":
    main()
