"""What users may rely on: the names, that each is documented and typed, and the signature of ``fit``."""

import importlib
import inspect
import subprocess
import sys
import types

import pytest

import cvkit

MODULES = ["callbacks", "data", "errors", "export", "metrics", "models", "plots", "recipes", "transforms"]
PINNED = {
    "cvkit": [
        *(
            "Callback",
            "FitResult",
            "History",
            "LRCurve",
            "Prediction",
            "Predictions",
            "Predictor",
            "Runtime",
            "TrainState",
        ),
        *(
            "evaluate",
            "find_batch_size",
            "find_lr",
            "fit",
            "load",
            "load_checkpoint",
            "predict",
            "preflight",
            "save_checkpoint",
            *MODULES,
        ),
    ],
    "cvkit.callbacks": [
        *("CSVLogger", "Checkpoint", "EarlyStopping", "GradientNorm", "GradualUnfreezing", "LRSchedule"),
        *("Profile", "Progress", "Prune", "StopOnNaN", "TensorBoard", "Timer", "Watch"),
    ],
    "cvkit.data": ["ArrayDataset", "FolderDataset", "Loader", "from_folder", "write_shapes"],
    "cvkit.errors": ["ArgumentError", "CvkitError", "CvkitWarning", "DataError", "ImageError", "UnknownNameError"],
    "cvkit.export": ["read_metadata", "write"],
    "cvkit.metrics": ["Accuracy", "Mean", "Metric"],
    "cvkit.models": [
        *("adapt_input", "append_head", "create", "find_blocks", "freeze", "from_config", "names", "param_groups"),
        *("checkpoint_blocks", "register", "replace_head", "summary", "unfreeze"),
    ],
    "cvkit.plots": [
        *("confusion_matrix", "plot_history", "show_batch", "show_masks", "show_predictions", "top_losses"),
    ],
    "cvkit.recipes": ["Recipe", "get", "names"],
    "cvkit.transforms": [
        *("Transform", "classification_eval", "classification_train", "digits_eval", "digits_train"),
        *("small_image_eval", "small_image_train"),
    ],
}
each_module = pytest.mark.parametrize("module", PINNED)


def public(module: str) -> dict[str, object]:
    room = importlib.import_module(module)
    return {name: getattr(room, name) for name in room.__all__}


def everything() -> list[tuple[str, object]]:
    """Every public function, class and method, under its public name, once."""
    found: dict[int, tuple[str, object]] = {}
    for module in PINNED:
        for name, value in public(module).items():
            if inspect.isfunction(value) or inspect.isclass(value):
                found.setdefault(id(value), (f"{module}.{name}", value))
                for method, member in vars(value).items() if inspect.isclass(value) else ():
                    member = member.fget if isinstance(member, property) else getattr(member, "__func__", member)
                    own = getattr(member, "__module__", None) == value.__module__
                    if inspect.isfunction(member) and own and (not method.startswith("_") or method == "__init__"):
                        found.setdefault(id(member), (f"{module}.{name}.{method}", member))
    return list(found.values())


EVERYTHING = everything()


@each_module
def test_the_names_that_users_rely_on_are_there(module):
    assert set(PINNED[module]) - set(importlib.import_module(module).__all__) == set()


@each_module
def test_all_is_a_sorted_list_without_doubles_in_which_every_name_resolves(module):
    names = importlib.import_module(module).__all__
    assert isinstance(names, list)
    assert len(set(names)) == len(names)
    # as ruff sorts it: constants, then classes, then the rest
    assert names == sorted(
        names, key=lambda name: (0 if name.isupper() and len(name) > 1 else 1 if name[0].isupper() else 2, name)
    )
    assert all(value is not None for value in public(module).values())


def test_the_root_holds_its_modules_and_nothing_that_is_not_listed():
    assert [name for name, value in public("cvkit").items() if isinstance(value, types.ModuleType)] == MODULES
    stray = {
        name
        for name, value in vars(cvkit).items()
        if not name.startswith("_") and name not in cvkit.__all__ and not isinstance(value, types.ModuleType)
    }
    assert stray == set()


@each_module
def test_every_module_says_what_it_is(module):
    assert (inspect.getdoc(importlib.import_module(module)) or "").strip()


@pytest.mark.parametrize(("name", "value"), [one for one in EVERYTHING if not one[0].endswith("__init__")])
def test_every_public_name_has_a_docstring_of_its_own(name, value):
    doc = vars(value).get("__doc__") if inspect.isclass(value) else value.__doc__
    assert doc, name
    assert not doc.startswith(f"{name.rpartition('.')[2]}("), "written by dataclasses, not by a person"


@pytest.mark.parametrize(("name", "value"), [one for one in EVERYTHING if inspect.isfunction(one[1])])
def test_every_public_function_is_fully_annotated(name, value):
    signature = inspect.signature(value)
    own = [one for one in signature.parameters.values() if one.name not in ("self", "cls")]
    assert [one.name for one in own if one.annotation is inspect.Parameter.empty] == []
    assert signature.return_annotation is not inspect.Signature.empty


@pytest.mark.parametrize(
    ("name", "value"),
    [one for one in EVERYTHING if inspect.isfunction(one[1]) and not one[0].startswith("cvkit.models.")],
)
def test_no_public_function_takes_just_any_keyword(name, value):
    kinds = [one.kind for one in inspect.signature(value).parameters.values()]
    assert inspect.Parameter.VAR_KEYWORD not in kinds


def test_the_signature_of_fit_is_pinned():
    parameters = inspect.signature(cvkit.fit).parameters
    assert list(parameters)[:3] == ["model", "train", "val"]
    positional = [one.name for one in parameters.values() if one.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD]
    assert positional == ["model", "train", "val"]
    defaults = {name: one.default for name, one in parameters.items()}
    assert defaults == {
        "model": inspect.Parameter.empty,
        "train": inspect.Parameter.empty,
        "val": None,
        "epochs": inspect.Parameter.empty,
        "max_steps": None,
        "loss": "cross_entropy",
        "optimizer": "adamw",
        "lr": 1e-3,
        "schedule": None,
        "warmup": 0,
        "metrics": None,
        "callbacks": (),
        "step": None,
        "device": "auto",
        "precision": "auto",
        "compile": False,
        "accumulate": 1,
        "clip_norm": None,
        "seed": None,
        "deterministic": False,
        "resume": False,
        "progress": True,
        "preflight": True,
        "override": (),
        "steps_per_epoch": None,
        "dry_run": False,
        "ignore": (),
    }
    assert list(parameters) == list(defaults)


def test_the_fields_of_a_result_are_pinned():
    fields = list(inspect.signature(cvkit.FitResult).parameters)
    assert fields == [
        "history",
        "model",
        "epochs",
        "steps",
        "stop_reason",
        "best_checkpoint",
        "last_checkpoint",
        "skipped",
    ]


def test_the_hooks_of_a_callback_are_pinned():
    assert [name for name in vars(cvkit.Callback) if name.startswith("on_")] == [
        "on_fit_start",
        "on_epoch_start",
        "on_batch_start",
        "on_gradients_ready",
        "on_batch_end",
        "on_validation_batch_end",
        "on_validation_end",
        "on_epoch_end",
        "on_exception",
        "on_fit_end",
    ]


def test_import_cvkit_does_no_work_and_loads_nothing_optional():
    code = """
import random, sys
before = random.getstate()
import torch
threads, state = torch.get_num_threads(), torch.get_rng_state()
import cvkit
late = {"matplotlib", "timm", "torchmetrics", "safetensors", "tensorboard", "tensorboardX", "tqdm.auto", "pandas", "onnx", "onnxruntime", "onnxscript"}
assert not late & set(sys.modules), late & set(sys.modules)
assert random.getstate() == before and torch.equal(torch.get_rng_state(), state)
assert torch.get_num_threads() == threads and not torch.cuda.is_initialized()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_package_says_that_it_is_typed(repository):
    assert (repository / "src" / "cvkit" / "py.typed").is_file()
