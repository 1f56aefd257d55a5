"""The shape of the house, read from its source: which way imports run, how long things are, what is never written."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src" / "cvkit"

LEAVES = {
    "loading",
    "arguments",
    "calls",
    "errors",
    "figures",
    "machine",
    "main_guard",
    "module_state",
    "numbering",
    "outputs",
    "pixels",
    "plain_values",
    "registry",
    "seeding",
    "streams",
    "worker_signals",
}
MIDDLE = {"diagnosis", "losses", "metrics", "serialization"}
ALLOWED = {
    "errors": set(),
    "loading": set(),
    "machine": set(),
    "outputs": set(),
    "plain_values": set(),
    "report": set(),
    "streams": set(),
    "worker_signals": set(),
    "arguments": {"errors"},
    "calls": {"errors"},
    "figures": {"errors"},
    "main_guard": {"errors"},
    "numbering": {"errors"},
    "pixels": {"errors"},
    "registry": {"errors"},
    "seeding": {"errors"},
    "module_state": {"errors", "seeding"},
    "serialization": LEAVES,
    "losses": LEAVES,
    "metrics": {"losses", *LEAVES},
    "diagnosis": {"losses", *LEAVES},
    "data": LEAVES,
    "transforms": LEAVES,
    "models": {"serialization", *LEAVES},
    "training": MIDDLE | LEAVES,
    "callbacks": {"training", "integrations"} | MIDDLE | LEAVES,
    "export": LEAVES,
    "integrations": {"data", "models", "report", "training"} | MIDDLE | LEAVES,
    "recipes": LEAVES,
    "inference": {"data", "transforms", "models", "training", "export", "integrations"} | MIDDLE | LEAVES,
    "plots": {"data", "transforms", "models", "training", "inference"} | MIDDLE | LEAVES,
    "command_line": {"callbacks", "data", "inference", "models", "report", "training"} | LEAVES,
    "__main__": {"command_line"},
}
"""What each room may import; the root, the map of the house, may import them all."""

OPTIONAL = {
    "matplotlib",
    "simplejpeg",
    "fsspec",
    "onnx",
    "onnxruntime",
    "onnxscript",
    "timm",
    "pytorch_optimizer",
    "torchmetrics",
    "safetensors",
    "tensorboard",
    "wandb",
    "mlflow",
    "trackio",
    "optuna",
    "huggingface_hub",
}
LATE = OPTIONAL | {"tensorboardX", "tqdm"}
"""Imported where they are used: they are slow, or may be missing."""

MAX_FUNCTION = 40
MAX_FILE = 400


class Source:
    """One source file, parsed.

    Args:
        name: Dotted, without the package's own name: "training.loop", "data" for data/__init__.py, "" for the root.
        text: What it holds.
    """

    def __init__(self, name: str, text: str) -> None:
        self.name = name
        self.text = text
        self.tree = ast.parse(text)

    @property
    def room(self) -> str:
        return self.name.partition(".")[0]

    def imports(self) -> Iterator[tuple[ast.stmt, str]]:
        """Yields every imported dotted name with its statement, wherever it stands; ``from a import b`` is ``a.b``."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                yield from ((node, alias.name) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                yield from ((node, f"{'.' * node.level}{node.module or ''}.{alias.name}") for alias in node.names)

    def calls(self) -> Iterator[ast.Call]:
        return (node for node in ast.walk(self.tree) if isinstance(node, ast.Call))


def read_house() -> list[Source]:
    sources = []
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        sources.append(Source(".".join(parts[:-1] if parts[-1] == "__init__" else parts), path.read_text("utf-8")))
    return sources


# --- the checks: each takes sources and returns what it finds wrong with them


def imports_run_one_way(sources: list[Source]) -> list[str]:
    found = []
    for source in (one for one in sources if one.room):
        if source.room not in ALLOWED:
            found.append(f"{source.name}: the room {source.room} has no place in ALLOWED")
            continue
        for node, name in source.imports():
            if name.startswith("."):
                found.append(f"{source.name}:{node.lineno}: relative import {name}")
            elif name.partition(".")[0] == "cvkit":
                room = name.split(".")[1] if "." in name else ""
                if room != source.room and room not in ALLOWED[source.room]:
                    found.append(f"{source.name}:{node.lineno}: {source.room} imports {name}")
    return found


def no_circles(sources: list[Source]) -> list[str]:
    """Circles among files, imports under ``TYPE_CHECKING`` counted: a reader follows those, too."""
    names = {source.name for source in sources}
    graph = {
        source.name: {_owner(name, names) for _, name in source.imports()} - {None, source.name} for source in sources
    }
    found, done = [], set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        if name in path:
            found.append(" → ".join([*path[path.index(name) :], name]))
        elif name not in done:
            for other in sorted(graph[name]):
                visit(other, (*path, name))
            done.add(name)

    for name in sorted(graph):
        visit(name, ())
    return found


def _asleep(source: Source) -> set[int]:
    """What stands under ``TYPE_CHECKING``, and never runs."""
    return {
        id(node)
        for block in ast.walk(source.tree)
        if isinstance(block, ast.If) and ast.unparse(block.test).endswith("TYPE_CHECKING")
        for inner in block.body
        for node in ast.walk(inner)
    }


def _owner(name: str, names: set[str]) -> str | None:
    """The file that an imported name comes from: the longest dotted prefix that is one."""
    parts = name.split(".")
    if parts[0] != "cvkit":
        return None
    return next((".".join(parts[1:end]) for end in range(len(parts), 1, -1) if ".".join(parts[1:end]) in names), None)


def slow_and_optional_imports_are_late(sources: list[Source]) -> list[str]:
    found = []
    for source in sources:
        inside = {
            id(node)
            for function in ast.walk(source.tree)
            if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
            for node in ast.walk(function)
        } | _asleep(source)
        for node, name in source.imports():
            if name.partition(".")[0] in LATE and id(node) not in inside:
                found.append(f"{source.name}:{node.lineno}: {name} is imported at the top")
    return found


def functions_are_short(sources: list[Source]) -> list[str]:
    found = []
    for source in sources:
        for node in ast.walk(source.tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and (lines := _code_lines(node)) > MAX_FUNCTION:
                found.append(f"{source.name}:{node.lineno}: {node.name} has {lines} lines of code")
    return found


def _code_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines from the first statement to the last; the signature and the docstring do not count."""
    body = function.body[1:] if ast.get_docstring(function) is not None else function.body
    return (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0


def files_are_short(sources: list[Source]) -> list[str]:
    """Lines of a file without its docstrings."""
    return [f"{s.name}: {lines} lines" for s in sources if (lines := _undocumented_lines(s)) > MAX_FILE]


def _undocumented_lines(source: Source) -> int:
    documented = (
        node.body[0]
        for node in ast.walk(source.tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and ast.get_docstring(node) is not None
    )
    return len(source.text.splitlines()) - sum((one.end_lineno or 0) - one.lineno + 1 for one in documented)


def nothing_is_validated_with_assert(sources: list[Source]) -> list[str]:
    return [
        f"{s.name}:{node.lineno}: assert" for s in sources for node in ast.walk(s.tree) if isinstance(node, ast.Assert)
    ]


def nothing_is_swallowed(sources: list[Source]) -> list[str]:
    """No handler that does nothing, no bare ``except:``, no ``contextlib.suppress`` of everything."""
    found = []
    for source in sources:
        for node in ast.walk(source.tree):
            if isinstance(node, ast.ExceptHandler) and (node.type is None or all(_idle(one) for one in node.body)):
                found.append(f"{source.name}:{node.lineno}: {ast.unparse(node).splitlines()[0]} swallows")
        for call in source.calls():
            everything = any(ast.unparse(one) in ("Exception", "BaseException") for one in call.args)
            if ast.unparse(call.func).endswith("suppress") and everything:
                found.append(f"{source.name}:{call.lineno}: {ast.unparse(call)} swallows")
    return found


def _idle(node: ast.stmt) -> bool:
    return isinstance(node, ast.Pass) or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))


def loading_a_file_runs_no_code(sources: list[Source]) -> list[str]:
    found = []
    for source in sources:
        for call in source.calls():
            function = ast.unparse(call.func)
            options = {one.arg: ast.unparse(one.value) for one in call.keywords}
            if function == "torch.load" and options.get("weights_only") != "True":
                found.append(f"{source.name}:{call.lineno}: torch.load without weights_only=True")
            elif options.get("weights_only", "True") != "True":
                found.append(f"{source.name}:{call.lineno}: weights_only={options['weights_only']}")
            elif options.get("allow_pickle", "False") != "False":
                found.append(f"{source.name}:{call.lineno}: allow_pickle={options['allow_pickle']}")
            elif function in ("pickle.load", "pickle.loads", "eval", "exec", "torch.jit.load", "add_safe_globals"):
                found.append(f"{source.name}:{call.lineno}: {function}")
        for node, name in source.imports():
            if name in ("torch.load", "pickle.load", "pickle.loads"):
                found.append(f"{source.name}:{node.lineno}: {name} under another name")
    return found


CHECKS = [
    imports_run_one_way,
    no_circles,
    slow_and_optional_imports_are_late,
    functions_are_short,
    files_are_short,
    nothing_is_validated_with_assert,
    nothing_is_swallowed,
    loading_a_file_runs_no_code,
]


@pytest.fixture(scope="module")
def house():
    return read_house()


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_the_house_holds(check, house):
    assert check(house) == []


def test_the_whole_house_is_read(house):
    rooms = {source.room for source in house}
    assert {
        "",
        "errors",
        "registry",
        "seeding",
        "data",
        "transforms",
        "models",
        "training",
        "callbacks",
        "metrics",
    } <= rooms
    assert any(source.name == "training.loop" for source in house)


OFFENCES = [
    (imports_run_one_way, {"training.x": "from cvkit.data import Loader"}),
    (imports_run_one_way, {"training.x": "def f():\n    from cvkit.callbacks import Progress"}),
    (imports_run_one_way, {"training.x": "if TYPE_CHECKING:\n    from cvkit.models import create"}),
    (imports_run_one_way, {"data.x": "import cvkit.transforms.presets as p"}),
    (imports_run_one_way, {"data.x": "from cvkit import transforms"}),
    (imports_run_one_way, {"models.x": "import cvkit"}),
    (imports_run_one_way, {"models.x": "from cvkit import fit"}),
    (imports_run_one_way, {"transforms.x": "from .. import data"}),
    (imports_run_one_way, {"errors": "from cvkit.registry import Registry"}),
    (imports_run_one_way, {"kitchen.x": ""}),
    (no_circles, {"data.x": "from cvkit.data.y import a", "data.y": "from cvkit.data import x"}),
    (no_circles, {"data": "from cvkit.data.x import a", "data.x": "from cvkit.data import b"}),
    (no_circles, {"data.x": "def f():\n    import cvkit.data.y", "data.y": "import cvkit.data.x"}),
    (
        no_circles,
        {"data.x": "if TYPE_CHECKING:\n    from cvkit.data.y import A", "data.y": "from cvkit.data.x import b"},
    ),
    (slow_and_optional_imports_are_late, {"x": "import matplotlib.pyplot as plt"}),
    (
        slow_and_optional_imports_are_late,
        {"x": "try:\n    from timm import create_model\nexcept ImportError:\n    timm = None"},
    ),
    (slow_and_optional_imports_are_late, {"x": "class A:\n    import safetensors"}),
    (functions_are_short, {"x": "def f():\n" + "    a = 1\n" * (MAX_FUNCTION + 1)}),
    (
        functions_are_short,
        {"x": "class A:\n    async def f(self):\n        'Doc.'\n" + "        a = 1\n" * (MAX_FUNCTION + 1)},
    ),
    (files_are_short, {"x": "a = 1\n" * (MAX_FILE + 1)}),
    (files_are_short, {"x": "'''Doc.'''\n" + "a = 1\n" * (MAX_FILE + 1)}),
    (nothing_is_validated_with_assert, {"x": "def f(a):\n    assert a > 0"}),
    (nothing_is_swallowed, {"x": "try:\n    f()\nexcept ValueError:\n    pass"}),
    (nothing_is_swallowed, {"x": "try:\n    f()\nexcept Exception:\n    ..."}),
    (nothing_is_swallowed, {"x": "try:\n    f()\nexcept:\n    a = 1"}),
    (nothing_is_swallowed, {"x": "with contextlib.suppress(Exception):\n    f()"}),
    (loading_a_file_runs_no_code, {"x": "torch.load(path)"}),
    (loading_a_file_runs_no_code, {"x": "torch.load(path, weights_only=False)"}),
    (loading_a_file_runs_no_code, {"x": "load(path, weights_only=trusted)"}),
    (loading_a_file_runs_no_code, {"x": "from torch import load"}),
    (loading_a_file_runs_no_code, {"x": "np.load(path, allow_pickle=True)"}),
    (loading_a_file_runs_no_code, {"x": "pickle.loads(data)"}),
]


@pytest.mark.parametrize(("check", "offence"), OFFENCES)
def test_each_check_finds_an_offence(check, offence):
    assert check([Source(name, text) for name, text in offence.items()])


INNOCENT = {
    "": "from cvkit import data, training",
    "data": "from cvkit.data.x import a",
    "data.x": "from cvkit.errors import DataError\nfrom cvkit.data import y",
    "data.y": "import torch\nif TYPE_CHECKING:\n    from matplotlib.figure import Figure",
    "training.x": "def f():\n    'Doc.'\n    import tqdm\n" + "    a = 1\n" * (MAX_FUNCTION - 1),
    "callbacks.x": "from cvkit.training import Callback\ntry:\n    f()\nexcept ValueError:\n    a = None",
    "errors": "state = torch.load(path, map_location='cpu', weights_only=True)",
}


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_each_check_lets_the_innocent_pass(check):
    assert check([Source(name, text) for name, text in INNOCENT.items()]) == []


def test_every_check_has_an_offence_to_prove_itself_on():
    assert {check for check, _ in OFFENCES} == set(CHECKS)
