"""The reference: a page for each module with its names in groups, and from there a page for each name.

The groups are written here. A public name that is in no group stands under "More", so that none is ever missing.
"""

import ast
import fnmatch
import importlib
import inspect
import re
from pathlib import Path

DOCS = Path(__file__).parents[1]
PAGES = DOCS / "reference" / "generated"
EXAMPLES = DOCS.parent / "examples"
ALIASES = {
    "Step": "cvkit.training.state.Step",
    "LossFunction": "cvkit.losses.LossFunction",
    "Precision": "cvkit.training.runtime.Precision",
    "Task": "cvkit.outputs.Task",
}
"""Types that signatures name without their module, and their entries in reference/types.rst."""

MODULES, REST = "   MODULES", "   *"
"""Entries of a table of contents: the pages of all modules; every page of the folder that the page does not list."""

PATTERN = re.compile(r"   [\w./]+\*")
"""An entry that matches the pages which begin like this, if there are any."""

GROUPS = {
    "cvkit": {
        "Train": ["fit", "evaluate", "preflight", "find_lr", "find_batch_size"],
        "Predict": ["load", "predict", "Predictor", "Prediction", "Predictions"],
        "What a run returns": ["FitResult", "History", "LRCurve"],
        "Extend a run": ["Callback", "TrainState", "Runtime", "register_loss"],
        "Save and load": ["save_checkpoint", "load_checkpoint", "save_weights", "load_weights"],
    },
    "cvkit.data": {
        "Start here": ["from_folder", "FolderData", "write_shapes"],
        "Datasets": [
            "FolderDataset",
            "ParallelDataset",
            "FilenameDataset",
            "TableDataset",
            "ArrayDataset",
            "ShardDataset",
        ],
        "Public datasets": ["mnist", "fashion_mnist", "cifar10", "cifar100"],
        "Combine": ["split", "kfold", "concat", "Subset", "JoinedDataset"],
        "Check": ["report", "DataReport", "Manifest", "Verification", "decode"],
        "Shards": ["write_shards"],
        "Load batches": ["Loader", "RawBatch", "Dataset"],
    },
    "cvkit.transforms": {
        "Classification": ["classification_train", "classification_eval", "small_image_train", "small_image_eval"],
        "Other tasks": ["digits_train", "digits_eval", "segmentation_train", "segmentation_eval", "denoise"],
        "Pretrained weights": ["from_weights"],
        "Custom transforms": ["Transform", "Frame", "Framed"],
    },
    "cvkit.models": {
        "Build": ["create", "names", "register", "from_config"],
        "Change": ["replace_head", "append_head", "adapt_input"],
        "Freeze": ["freeze", "unfreeze", "find_blocks", "param_groups", "checkpoint_blocks"],
        "Look": ["summary", "Summary", "Layer"],
    },
    "cvkit.callbacks": {
        "Save and stop": ["Checkpoint", "EarlyStopping", "StopOnNaN", "Timer"],
        "Change the training": ["EMA", "SWA", "LRSchedule", "GradualUnfreezing"],
        "Watch": ["TensorBoard", "CSVLogger", "GradientNorm", "Profile", "Progress"],
    },
    "cvkit.metrics": {
        "Classification": ["Accuracy", "ClassAccuracy", "TopK", "Precision", "Recall", "F1"],
        "Segmentation": ["Dice", "IoU"],
        "Calibration": ["CalibrationError", "fit_temperature"],
        "Custom metrics": ["Metric", "Mean", "register"],
    },
    "cvkit.recipes": {"Recipes": ["get", "names", "Recipe"]},
    "cvkit.plots": {
        "The data": ["show_batch", "show_masks"],
        "The run": ["plot_history"],
        "The predictions": ["show_predictions", "top_losses", "confusion_matrix"],
    },
    "cvkit.export": {"Export": ["write", "read_metadata", "check_path"]},
}


def modules():
    """Every public module, the package itself first."""
    import cvkit

    found = [name for name in cvkit.__all__ if inspect.ismodule(getattr(cvkit, name))]
    ordered = [name.partition(".")[2] for name in GROUPS if "." in name]
    return [
        "cvkit",
        *(f"cvkit.{one}" for one in sorted(found, key=lambda one: (ordered.index(one) if one in ordered else 99, one))),
    ]


def public_names(module):
    """The public names of a module that are no modules themselves."""
    there = importlib.import_module(module)
    return [one for one in there.__all__ if not inspect.ismodule(getattr(there, one))]


def groups(module):
    """The names of a module by group; every public name is in exactly one."""
    left = public_names(module)
    found = {}
    for title, names in GROUPS.get(module, {}).items():
        found[title] = [one for one in names if one in left]
        left = [one for one in left if one not in names]
    if left:
        found["More" if found else "Names"] = left
    return {title: names for title, names in found.items() if names}


def page(module):
    """The text of a module's page."""
    lines = [module, "=" * len(module), "", f".. automodule:: {module}", ""]
    for title, names in groups(module).items():
        lines += [title, "-" * len(title), "", f".. currentmodule:: {module}", ""]
        lines += [".. autosummary::", "   :toctree: .", "   :nosignatures:", "", *(f"   {one}" for one in names), ""]
    return "\n".join(lines)


def write():
    """Writes the pages of the modules; those of the names are written by autosummary."""
    PAGES.mkdir(parents=True, exist_ok=True)
    for module in modules():
        path, text = PAGES / f"{module}.rst", page(module)
        if not path.is_file() or path.read_text("utf-8") != text:
            path.write_text(text, "utf-8")


def filled(text, folder):
    """A page with the open entries of its tables of contents written out."""
    lines = []
    for line in text.split("\n"):
        if line == MODULES:
            lines += [f"   generated/{module}" for module in modules()]
        elif line == REST:
            there = sorted(path.stem for path in folder.glob("*.rst"))
            patterns = [one.strip() for one in text.split("\n") if PATTERN.fullmatch(one)]
            for name in there:
                taken = f"\n   {name}\n" in text or any(fnmatch.fnmatch(name, one) for one in patterns)
                lines += [] if taken or name == "index" else [f"   {name}"]
        elif PATTERN.fullmatch(line):
            found = sorted(folder.glob(f"{line.strip()}.rst"))
            lines += [f"{line[: line.rindex('/') + 1] if '/' in line else '   '}{path.stem}" for path in found]
        else:
            lines.append(line)
    return "\n".join(lines)


def used_names(source):
    """The full names of what a script uses of cvkit's."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "cvkit":
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Attribute) and ast.unparse(node).startswith("cvkit."):
            yield ast.unparse(node)


def examples_by_name():
    """The examples that use a name, by the name."""
    found = {}
    for path in sorted(EXAMPLES.glob("*.py")):
        for name in set(used_names(path.read_text("utf-8"))):
            found.setdefault(name, []).append(path.stem)
    return found


def setup(app):
    from sphinx import addnodes

    by_name = examples_by_name()

    def add_examples(app, what, name, obj, options, lines):
        if what in ("function", "class") and by_name.get(name):
            links = ", ".join(f":ref:`example-{one}`" for one in by_name[name])
            lines += ["", ".. rubric:: Examples that use it", "", links, ""]

    def plain_default(app, what, name, obj, options, signature, returns):
        return (signature and signature.replace("= DEFAULT_LR", "= 1e-3"), returns)

    def fill_tables(app, docname, source):
        """Writes out the entries of a table of contents that leave room for pages which may not be there."""
        source[0] = filled(source[0], (DOCS / docname).parent)

    def name_aliases(app, doctree):
        """Lets the name of a type in a signature mean its entry, also where a metric has the same name."""
        for node in doctree.findall(addnodes.pending_xref):
            if node.get("refdomain") == "py" and node["reftarget"] in ALIASES:
                node.attributes |= {"reftarget": ALIASES[node["reftarget"]], "reftype": "obj", "refspecific": False}

    app.connect("doctree-read", name_aliases)
    app.connect("source-read", fill_tables)
    app.connect("autodoc-process-docstring", add_examples, priority=900)  # after napoleon
    app.connect("autodoc-process-signature", plain_default)
    return {"parallel_read_safe": True}
