"""Sharing a trained model: ``push`` to the Hugging Face Hub or a directory, from which ``cvkit.load`` makes a predictor.

What is written is four files: ``model.safetensors``, ``cvkit.json`` (what the model is), ``README.md`` (the model card) and
``manifest.json`` (what is needed to train it again). None of them holds code, and loading runs none.
"""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from cvkit.errors import ArgumentError, CheckpointError, MissingDependencyError
from cvkit.integrations.model_card import card, manifest
from cvkit.serialization import state_dicts
from cvkit.serialization.file_errors import written
from cvkit.training import load_checkpoint

__all__ = ["content_of", "push"]

WEIGHTS, DESCRIPTION, CARD, MANIFEST = "model.safetensors", "cvkit.json", "README.md", "manifest.json"
_ADDRESS = re.compile(r"hf://(?P<repo>\w[\w.-]*/\w[\w.-]*?)(?:@(?P<revision>[\w./-]+))?")


def push(
    run: str | Path, target: str | Path, *, private: bool = False, message: str = "A model trained with cvkit"
) -> str:
    """Publishes the model of a run.

    Args:
        run: A run's directory, of which ``best.pt`` is taken or else ``last.pt``; or a checkpoint file.
        target: ``"hf://owner/name"`` for the Hub, where you are logged in by ``hf auth login``; anything else is a directory,
            which is made.
        private: Whether a repository that is new is private.
        message: The commit's message on the Hub.

    Returns:
        What :func:`cvkit.load` takes: the address or the directory.

    Raises:
        CheckpointError: The run has no checkpoint, it cannot be published, or the Hub does not take it.
        ArgumentError: A target that is no address of the Hub, or a directory with other files.
        MissingDependencyError: safetensors is not installed, or for the Hub huggingface_hub.
    """
    source = _checkpoint(Path(run))
    content = load_checkpoint(source)
    if not str(target).startswith("hf:"):
        return str(_write(content, source, _own_directory(Path(target))))
    repo, _ = _parsed(str(target))
    package = _package()
    with tempfile.TemporaryDirectory(prefix="cvkit-push-") as directory:
        folder = _write(content, source, Path(directory))
        try:
            api = package.HfApi()
            api.create_repo(repo, private=private, repo_type="model", exist_ok=True)
            api.upload_folder(repo_id=repo, folder_path=str(folder), repo_type="model", commit_message=message)
        except Exception as error:  # of many kinds: of the package's own, of the network's
            raise _refused(f"{target} did not take the model", error, "hf auth login") from error
    return str(target)


def content_of(path: str | Path) -> dict[str, Any] | None:
    """Returns what was published at an address or in a directory, in the form of a checkpoint.

    Of a repository two files are fetched, and nothing else: the weights and the description.

    Args:
        path: ``"hf://owner/name"``, with ``@revision`` for a branch, tag or commit; or a path.

    Returns:
        The content; ``None`` for a path that holds nothing published: a checkpoint file, or any other directory.

    Raises:
        CheckpointError: It cannot be fetched, or is damaged.
        ArgumentError: Something that begins as an address and is none.
        MissingDependencyError: safetensors is not installed, or for the Hub huggingface_hub.
    """
    if isinstance(path, str) and path.startswith("hf:"):
        return _read(_fetched(path), path)
    return _read(Path(path), str(path)) if (Path(path) / DESCRIPTION).is_file() else None


def _checkpoint(run: Path) -> Path:
    if run.is_file():
        return run
    for name in ("best.pt", "last.pt"):
        if (run / name).is_file():
            return run / name
    raise CheckpointError(
        f"{run} cannot be published",
        got="a directory without best.pt and last.pt" if run.is_dir() else "no such file or directory",
        expected="a directory that the callback Checkpoint wrote into",
        fix="train with callbacks=[Checkpoint(directory)]",
    )


def _own_directory(target: Path) -> Path:
    """Returns a directory to write into, which holds nothing but what an earlier push wrote."""
    others = (
        {one.name for one in target.iterdir()} - {WEIGHTS, DESCRIPTION, CARD, MANIFEST} if target.is_dir() else set()
    )
    if target.is_file() or others:
        raise ArgumentError(
            f"cannot publish to {target}",
            got=f"a directory with {sorted(others)[0]}" if others else "a file",
            expected='an empty or new directory, or "hf://owner/name"',
            fix="name another directory",
        )
    with written("the published model", target):
        target.mkdir(parents=True, exist_ok=True)
    return target


def _write(content: Mapping[str, Any], source: Path, directory: Path) -> Path:
    """Writes the files; the description, without which nothing is loaded, comes last."""
    weights = content.get("model")
    if not isinstance(weights, Mapping) or not isinstance(content.get("training"), Mapping):
        raise CheckpointError(
            f"{source} cannot be published",
            got=f"the keys {', '.join(map(str, content)) or '(none)'}",
            expected="a file that a Checkpoint callback wrote",
            fix="pass the directory of a run",
        )
    odd = [name for name, value in weights.items() if not isinstance(value, torch.Tensor)]
    if odd:
        raise CheckpointError(
            f"{source} cannot be published",
            got=f"{odd[0]!r}, a {type(weights[odd[0]]).__name__}",
            expected="weights that are tensors",
            fix="leave extra state out of the module's state_dict()",
        )
    tensors = {name: value.clone(memory_format=torch.contiguous_format) for name, value in weights.items()}
    packed: bytes = state_dicts.safetensors(directory / WEIGHTS).save(tensors, metadata={"format": "pt"})
    digest = hashlib.sha256(packed).hexdigest()
    known = {key: content[key] for key in ("format", "cvkit", "torch", "description")} | {"weights_sha256": digest}
    made = manifest(content, digest)
    with written("the published model", directory):
        (directory / DESCRIPTION).unlink(missing_ok=True)
        (directory / WEIGHTS).write_bytes(packed)
        (directory / MANIFEST).write_text(json.dumps(made, indent=2, ensure_ascii=False) + "\n", "utf-8")
        (directory / CARD).write_text(card(content, made), "utf-8")
        (directory / DESCRIPTION).write_text(json.dumps(known, indent=2, ensure_ascii=False) + "\n", "utf-8")
    return directory


def _parsed(address: str) -> tuple[str, str | None]:
    found = _ADDRESS.fullmatch(address)
    if found is None:
        raise ArgumentError(
            f"{address!r} is no address of the Hub",
            expected='"hf://owner/name", with @revision for a branch, tag or commit',
            fix='e.g. "hf://your-name/flowers"',
        )
    return found["repo"], found["revision"]


def _package() -> Any:
    try:
        import huggingface_hub
    except ImportError as error:
        raise MissingDependencyError(
            "the Hugging Face Hub needs the package huggingface_hub",
            got=str(error),
            expected="huggingface_hub in this environment",
            fix='pip install "cvkit[hub]"',
        ) from error
    return huggingface_hub


def _fetched(address: str) -> Path:
    repo, revision = _parsed(address)
    package = _package()
    try:
        return Path(package.snapshot_download(repo, revision=revision, allow_patterns=[WEIGHTS, DESCRIPTION]))
    except Exception as error:  # of many kinds: of the package's own, of the network's
        raise _refused(
            f"{address} cannot be fetched", error, "check the name; for a private one, hf auth login"
        ) from error


def _refused(what: str, error: Exception, fix: str) -> CheckpointError:
    return CheckpointError(
        what,
        got=f"{type(error).__name__}: {' '.join(str(error).split())[:300]}",
        expected="a repository that you may use, and a network",
        fix=fix,
    )


def _read(directory: Path, source: str) -> dict[str, Any]:
    try:
        known = json.loads((directory / DESCRIPTION).read_text("utf-8"))
        digest = hashlib.sha256((directory / WEIGHTS).read_bytes()).hexdigest()
    except (OSError, ValueError, RecursionError) as error:
        raise _damaged(source, f"{type(error).__name__}: {error}") from error
    if not isinstance(known, dict) or digest != known.pop("weights_sha256", None):
        raise _damaged(source, f"a {WEIGHTS} that {DESCRIPTION} does not know")
    return known | {"model": state_dicts.read(directory / WEIGHTS)}


def _damaged(source: str, got: str) -> CheckpointError:
    return CheckpointError(
        f"{source} holds no model that cvkit can load",
        got=got,
        expected=f"{WEIGHTS} and {DESCRIPTION}, as cvkit.integrations.hub.push wrote them",
        fix="publish it again, or fetch it again",
    )
