"""What is told of a published model: the card for people, and the manifest for training it again."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from typing import Any

from cvkit.training.history import History

__all__ = ["card", "manifest"]

_ROWS = 20
_TASKS = {"mask": "image-segmentation", "image": "image-to-image"}


def manifest(content: Mapping[str, Any], digest: str) -> dict[str, Any]:
    """Returns what is needed to train a model again, of plain values.

    Args:
        content: A checkpoint's content.
        digest: SHA-256 of the weights' file.

    Returns:
        Versions, seed, every setting of the run, the data by counts and fingerprints, the history, and the commit of the
        directory that this is called in.
    """
    from cvkit.report import report  # a program as well, which python -m must be the first to load

    training = content["training"]
    settings = {name: value for name, value in training["settings"].items() if not name.startswith("the layer ")}
    return {
        "weights_sha256": digest,
        "cvkit": content["cvkit"],
        "torch": content["torch"],
        "seed": training["seed"],
        "epochs": training["epochs"],
        "steps": training["step"],
        "model": content["description"]["model"],
        "classes": content["description"]["classes"],
        "data": dict(training["data"]),
        "settings": settings,
        "history": _rows(training),
        "commit": _git(),
        "environment": report(),
    }


def card(content: Mapping[str, Any], made: Mapping[str, Any]) -> str:
    """Returns the text of the model card.

    Args:
        content: A checkpoint's content.
        made: Its :func:`manifest`.
    """
    known = content["description"]
    name = (known["model"] or {}).get("name", "a custom model")
    kind = _TASKS.get(known["images"].get("kind")) or ("image-classification" if known["classes"] else None)
    lines = ["---", "library_name: cvkit", *([f"pipeline_tag: {kind}"] if kind else []), "tags:", "- cvkit", "---", ""]
    lines += [f"# {name}, trained with cvkit", "", "```python", "import cvkit", ""]
    lines += ['predictor = cvkit.load("hf://OWNER/NAME")  # or the directory with these files', "```", ""]
    lines += ["Loading runs no code of this repository.", "", "## Data", "", *_data(made), ""]
    lines += ["## Results", "", *_table(made["history"]), "", "## Training", ""]
    lines += [f"- {label}: {value}" for label, value in _training(made)]
    lines += ["", "Every setting stands in `manifest.json`.", "", "## Environment", ""]
    lines += [f"- {label}: {value}" for label, value in made["environment"].items() if value != "none"]
    return "\n".join(lines) + "\n"


def _rows(training: Mapping[str, Any]) -> list[dict[str, float]]:
    history = History()
    history.load_state_dict(training["history"])
    return [dict(row) for row in history]


def _data(made: Mapping[str, Any]) -> list[str]:
    settings, classes = made["settings"], made["classes"]
    lines = [f"- training samples: {settings.get('samples', 'not known')}"]
    if settings.get("val data given") == "yes":
        lines.append(f"- validation samples: {settings.get('val samples', 'not known')}")
    return lines + ([f"- {len(classes)} classes: {', '.join(classes)}"] if classes else [])


def _training(made: Mapping[str, Any]) -> list[tuple[str, object]]:
    settings, commit = made["settings"], made["commit"]
    lines: list[tuple[str, object]] = [(name, made[name]) for name in ("epochs", "steps", "seed")]
    lines += [(name, settings[name]) for name in ("loss", "optimizer", "schedule", "transform") if name in settings]
    if commit is not None:
        lines.append(("commit", commit["id"] + (" with changes that are not committed" if commit["changed"] else "")))
    return [*lines, ("cvkit", made["cvkit"]), ("torch", made["torch"])]


def _table(rows: list[dict[str, float]]) -> list[str]:
    if not rows:
        return ["No epoch is complete."]
    shown = rows if len(rows) <= _ROWS else [*rows[: _ROWS // 2], *rows[-_ROWS // 2 :]]
    names = list(rows[-1])
    body = ["| " + " | ".join(f"{row[name]:.5g}" if name in row else "" for name in names) + " |" for row in shown]
    return ["| " + " | ".join(names) + " |", "|" + " --- |" * len(names), *body]


def _git() -> dict[str, Any] | None:
    """Returns the commit of the current directory, and whether files differ from it; ``None`` outside of git."""
    found = [_output("rev-parse", "HEAD"), _output("status", "--porcelain")]
    return None if found[0] is None else {"id": found[0], "changed": bool(found[1])}


def _output(*words: str) -> str | None:
    try:
        done = subprocess.run(["git", *words], capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
