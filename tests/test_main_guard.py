"""A script without a main guard, whose processes start by spawn or forkserver, is told which two lines to write."""

import multiprocessing
import os
import subprocess
import sys
import textwrap

import pytest

from cvkit import main_guard
from cvkit.errors import ArgumentError

FIX = (
    "  fix: put what the script does into a function main(), and end the script with these two lines:\n"
    '    if __name__ == "__main__":\n'
    "        main()\n"
)

BODY = """
print("the script runs")
data = cvkit.data.ArrayDataset(np.zeros((8, 4), "float32"), np.arange(8) % 2)
model = torch.nn.Linear(4, 2)
cvkit.fit(model, {loader}, epochs=1, progress=False, device="cpu")
"""

LOADERS = {
    "Loader": "cvkit.data.Loader(data, 4, workers=1, cache=None, start_method={method!r})",
    "DataLoader": "torch.utils.data.DataLoader(data, 4, num_workers=1, multiprocessing_context={method!r})",
    "by hand": "list(cvkit.data.Loader(data, 4, workers=1, cache=None, start_method={method!r}))",
}


def run(folder, loader, method, *, guarded):
    body = BODY.format(loader=LOADERS[loader].format(method=method))
    if guarded:
        body = "\ndef main():" + textwrap.indent(body, "    ") + '\nif __name__ == "__main__":\n    main()\n'
    script = folder / "script.py"
    script.write_text("import numpy as np\nimport torch\nimport cvkit\n" + body, "utf-8")
    return subprocess.run(
        [sys.executable, str(script)],
        cwd=folder,
        capture_output=True,
        text=True,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
    )


@pytest.mark.parametrize(
    ("loader", "method", "caller"),
    [
        ("Loader", "spawn", "fit, evaluate, preflight or find_lr"),
        ("Loader", "forkserver", "fit, evaluate, preflight or find_lr"),
        ("DataLoader", "spawn", "fit, evaluate, preflight or find_lr"),
        ("by hand", "spawn", "a Loader with workers"),
    ],
)
def test_a_script_without_a_main_guard_is_told_the_two_lines(loader, method, caller, tmp_path):
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"this system has no {method}")
    done = run(tmp_path, loader, method, guarded=False)
    assert done.returncode != 0
    assert (
        f"cvkit.errors.ArgumentError: {caller} was called while a new process imports the script\n"
        "  got: a script without a main guard, in a process that was started by spawn or forkserver\n"
        "  expected: a script that only defines things when it is imported\n" + FIX
    ) in done.stderr
    assert "bootstrapping phase" not in done.stderr  # multiprocessing's own message, or a process of a process
    assert done.stdout.count("the script runs") <= 2


def test_with_the_two_lines_the_same_script_trains(tmp_path):
    done = run(tmp_path, "Loader", "spawn", guarded=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("the script runs") == 1


def test_only_a_process_that_imports_the_script_is_refused(monkeypatch):
    main_guard.check("fit")
    monkeypatch.setattr(multiprocessing.current_process(), "_inheriting", True, raising=False)
    with pytest.raises(ArgumentError) as caught:
        main_guard.check("fit")
    assert str(caught.value).startswith("fit was called while a new process imports the script\n  got: ")
