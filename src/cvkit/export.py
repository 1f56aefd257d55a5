"""Models in files that run without cvkit: ONNX, and ``torch.export``.

==================  ===================================================================
``write``           any module to ``.onnx`` or ``.pt2``, tried before it gets its name
``read_metadata``   what was written beside it
==================  ===================================================================

``predictor.export(path)`` writes a predictor, with its preprocessing's numbers.
"""

from __future__ import annotations

import contextlib
import copy
import json
import os
import uuid
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cvkit.errors import ArgumentError, CvkitError, MissingDependencyError, ModelError

__all__ = ["check_path", "read_metadata", "write"]

TOLERANCE = 1e-4
"""How far what an exported program computes may be from what the model does, relative to the largest number."""

_METADATA, _KEY = "cvkit.json", "cvkit"
"""What the metadata is called: the extra file of a .pt2, and the key in an ONNX file under which all of it stands."""

_ENDINGS = (".onnx", ".pt2")
_MOST_BYTES = 3 * 2**29
"""The most weights in one ONNX file, which cannot be larger than 2 GiB; torch puts more of them into a second file."""


def check_path(path: str | Path) -> str:
    """Returns a file's ending, which says what is written.

    Raises:
        ArgumentError: Another ending than ``.onnx`` and ``.pt2``.
    """
    ending = Path(path).suffix
    if ending in _ENDINGS:
        return ending
    raise ArgumentError(
        f"cannot tell what to export to {path}",
        got=f"the ending {ending!r}",
        expected=".onnx for ONNX, or .pt2 for torch.export",
        fix=f"name it {Path(path).with_suffix('.onnx')}",
    )


def write(
    model: nn.Module,
    path: str | Path,
    example: Tensor,
    *,
    metadata: Mapping[str, Any] | None = None,
    input_name: str = "inputs",
    output_name: str = "outputs",
    check: bool = True,
) -> Path:
    """Writes a module as a program that runs without its code.

    The program is what the module does in evaluation mode, on the CPU, with any number of samples in a batch; the other sizes
    are those of the example. The file gets its name once it is whole, and has been tried.

    Args:
        model: A module that takes one tensor and returns one.
        path: ``….onnx``, or ``….pt2`` for ``torch.export.save``.
        example: Inputs ``(N, …)`` of the size and type that the program is to take.
        metadata: Plain values that are written beside the program: into ONNX's ``metadata_props``, each as JSON (text as it
            is) and all under the key ``cvkit``; or as the extra file ``cvkit.json``.
        input_name: The input's name, in ONNX.
        output_name: The output's name, in ONNX.
        check: Whether the program is run on the example and on a single sample of it, and compared with the model: outputs may
            differ by :data:`TOLERANCE` of the largest number. An ONNX file is run by onnxruntime.

    Returns:
        The path.

    Raises:
        ArgumentError: Another ending, or an example that is no batch.
        ModelError: A module that cannot be traced, a program that gives something else, one too large for ONNX, or a disk that
            does not take it.
        MissingDependencyError: ONNX is not installed.
    """
    path, ending = Path(path), check_path(path)
    if not isinstance(model, nn.Module) or not isinstance(example, Tensor) or example.ndim < 2 or len(example) == 0:
        raise ArgumentError(
            "this cannot be exported",
            got=f"{type(model).__name__} with {_shape(example)} as example",
            expected="an nn.Module, and a batch (N, …) of its inputs",
            fix="e.g. write(model, path, torch.rand(2, 3, 224, 224))",
        )
    if ending == ".onnx":
        _need_onnx(check=check)
        _check_size(model)
    # two samples at least: of one, torch would take it that there is never another number of them
    example = (example if len(example) > 1 else torch.cat([example, example])).detach().cpu()
    copied = _on_cpu(model)
    expected = _run(copied, example, model)
    program = _traced(copied, example, model)
    temporary = path.with_name(f".{path.stem}.{uuid.uuid4().hex[:8]}{ending}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if ending == ".onnx":
            _write_onnx(program, temporary, metadata or {}, input_name, output_name, model)
        else:
            torch.export.save(program, temporary, extra_files={_METADATA: json.dumps(metadata or {})})
        if check:
            run = _onnx_runner(temporary) if ending == ".onnx" else _program_runner(program)
            _compare(run, example, expected, model, path)
        os.replace(temporary, path)
    except OSError as error:
        raise ModelError(
            f"cannot write {path}",
            got=f"{type(error).__name__}: {error}",
            expected=f"a directory that takes it; the file before it is {'untouched' if path.exists() else 'not there'}",
            fix="see whether the disk is full or the directory is read-only",
        ) from error
    finally:
        with contextlib.suppress(OSError):  # after the renaming it is not there
            temporary.unlink(missing_ok=True)
    return path


def _shape(value: object) -> str:
    return f"a tensor {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"


def _on_cpu(model: nn.Module) -> nn.Module:
    """Returns a model in evaluation mode on the CPU, NCHW in memory (training on a GPU may have changed that); or as it is."""
    held = [*model.parameters(), *model.buffers()]
    ready = all(one.device.type == "cpu" and one.is_contiguous() for one in held)
    if ready and not any(module.training for module in model.modules()):
        return model
    copied = copy.deepcopy(model).to("cpu")
    return copied.to(memory_format=torch.contiguous_format).eval()


def _need_onnx(*, check: bool) -> None:
    """Sees whether the packages are there that writing, and trying, need.

    Raises:
        MissingDependencyError: One is not.
    """
    import importlib.util

    needed = ["onnx", "onnxscript", *(["onnxruntime"] if check else [])]
    missing = [name for name in needed if importlib.util.find_spec(name) is None]
    if missing:
        raise MissingDependencyError(
            "ONNX files cannot be written",
            got=f"no {' and no '.join(missing)}",
            expected=", ".join(needed),
            fix='pip install "cvkit[onnx]"',
        )


def _check_size(model: nn.Module) -> None:
    size = sum(one.numel() * one.element_size() for one in (*model.parameters(), *model.buffers()))
    if size > _MOST_BYTES:
        raise ModelError(
            f"{type(model).__name__} is too large for one ONNX file",
            got=f"{size / 2**30:.1f} GiB of weights",
            expected="at most 1.5 GiB (the format holds less than 2)",
            fix="export it to a .pt2 file",
        )


def _run(module: nn.Module, inputs: Tensor, model: nn.Module) -> Tensor:
    with torch.no_grad():
        outputs = module(inputs)
    if isinstance(outputs, Tensor):
        return outputs
    raise ModelError(
        f"{type(model).__name__} cannot be exported",
        got=f"outputs that are a {type(outputs).__name__}",
        expected="one tensor",
        fix="wrap it in a module that returns the one that is wanted",
    )


def _traced(module: nn.Module, example: Tensor, model: nn.Module) -> Any:
    """Returns the program of a module, for any number of samples.

    Raises:
        ModelError: It cannot be traced.
    """
    batch = torch.export.Dim("batch")
    try:
        with torch.no_grad():
            return torch.export.export(module, (example,), dynamic_shapes=({0: batch},), strict=False)
    except CvkitError:
        raise
    except Exception as error:  # torch raises of many kinds, each from where its tracing stumbled
        raise ModelError(
            f"{type(model).__name__} cannot be exported",
            got=f"{type(error).__name__}: {' '.join(str(error).split())[:500]}",
            expected="a forward() that does the same whatever the numbers are and however many samples there are",
            fix="see torch.export's documentation on data-dependent control flow",
        ) from error


def _write_onnx(
    program: Any, path: Path, metadata: Mapping[str, Any], input_name: str, output_name: str, model: nn.Module
) -> None:
    try:
        made: Any = torch.onnx.export(
            program,
            input_names=[input_name],
            output_names=[output_name],
            dynamo=True,
            verbose=False,
        )
        made.model.metadata_props[_KEY] = json.dumps(metadata, ensure_ascii=False)
        for key, value in metadata.items():
            made.model.metadata_props[key] = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        made.save(path, external_data=False)
    except Exception as error:  # of many kinds, as in tracing
        raise ModelError(
            f"{type(model).__name__} cannot be written as ONNX",
            got=f"{type(error).__name__}: {' '.join(str(error).split())[:500]}",
            expected="operations that ONNX has",
            fix="export it to a .pt2 file, or replace the operation",
        ) from error


def _onnx_runner(path: Path) -> Any:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda inputs: torch.from_numpy(session.run(None, {name: inputs.numpy()})[0])


def _program_runner(program: Any) -> Any:
    module = program.module()

    def run(inputs: Tensor) -> Tensor:
        with torch.no_grad():
            outputs: Tensor = module(inputs)
        return outputs

    return run


def _compare(run: Any, example: Tensor, expected: Tensor, model: nn.Module, path: Path) -> None:
    """Runs a program on the example, and on one sample of it.

    Raises:
        ModelError: It fails, or gives something else than the model.
    """
    for inputs, wanted in ((example, expected), (example[:1], expected[:1])):
        try:
            found = run(inputs)
        except Exception as error:  # whatever the runtime raises, it means that the file is of no use
            raise ModelError(
                f"{type(model).__name__} was exported, but does not run: {path} is not written",
                got=f"{type(error).__name__}: {' '.join(str(error).split())[:500]}",
                expected=f"outputs for {tuple(inputs.shape)}",
                fix="export it to another kind of file (.pt2, .onnx)",
            ) from error
        far = float((found - wanted).abs().max()) if found.shape == wanted.shape and wanted.numel() else None
        most = TOLERANCE * max(1.0, float(wanted.abs().max())) if wanted.numel() else 0.0
        if far is None or not far <= most:  # NaN compares as neither
            raise ModelError(
                f"{type(model).__name__} gives something else when exported: {path} is not written",
                got=f"outputs of shape {tuple(found.shape)}" if far is None else f"outputs that differ by {far:.3g}",
                expected=f"shape {tuple(wanted.shape)}, within {most:.3g} of the model's outputs",
                fix="look for random numbers in its forward(), or for branches on the number of samples",
            )


def read_metadata(path: str | Path) -> dict[str, Any]:
    """Returns what was written beside an exported program; the program itself is not loaded, and nothing in it is run.

    Args:
        path: A file that :func:`write` or ``predictor.export`` wrote.

    Raises:
        ArgumentError: Another ending, or a file without such metadata.
        MissingDependencyError: An ONNX file, and onnx is not installed.
    """
    path, ending = Path(path), check_path(path)
    try:
        if ending == ".onnx":
            return _onnx_metadata(path)
        with zipfile.ZipFile(path) as archive:
            name = next(one for one in archive.namelist() if one.endswith(f"/extra/{_METADATA}"))
            found: dict[str, Any] = json.loads(archive.read(name))
            return found
    except (OSError, StopIteration, ValueError, zipfile.BadZipFile) as error:
        raise ArgumentError(
            f"{path} holds no metadata of cvkit's",
            got=f"{type(error).__name__}: {error}" if str(error) else f"no {_METADATA} in it",
            expected="a file that cvkit.export.write or predictor.export wrote",
            fix="check the path",
        ) from error


def _onnx_metadata(path: Path) -> dict[str, Any]:
    try:
        import onnx
    except ImportError as error:
        raise MissingDependencyError(
            "ONNX files cannot be read",
            got="no onnx",
            expected="onnx",
            fix='pip install "cvkit[onnx]"',
        ) from error
    try:
        props = onnx.load(path, load_external_data=False).metadata_props
        found: dict[str, Any] = json.loads(next(one.value for one in props if one.key == _KEY))
    except OSError:
        raise
    except Exception as error:  # protobuf has errors of its own
        raise ValueError(" ".join(str(error).split()) or f"no {_KEY} in it") from error
    return found
