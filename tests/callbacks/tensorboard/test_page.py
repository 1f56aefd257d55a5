"""TensorBoard itself, started on a port of this machine: what its pages are given over HTTP."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

pytest.importorskip("tensorboard")

import cvkit
from cvkit.callbacks import TensorBoard

# A run that is killed where it is told to be, and that the same lines resume.
SCRIPT = """
import os, signal, sys
import torch
from torch import nn
import cvkit
from cvkit.callbacks import Checkpoint, TensorBoard

class Kill(cvkit.Callback):
    order = 1
    def on_batch_end(self, state):
        if state.step == LAST_STEP:
            os.kill(os.getpid(), signal.SIGKILL)

torch.set_num_threads(1)
torch.manual_seed(0)
images, targets = torch.rand(16, 3, 8, 8), torch.arange(16) % 2
batches = [(images[i:i + 4], targets[i:i + 4]) for i in range(0, 16, 4)]
model = nn.Sequential(nn.Flatten(), nn.Linear(192, 2))
board = TensorBoard(ROOT + "/killed", every_steps=1, histograms=True, images=4, figures=True, embeddings=8, hparams={"lr": 0.1})
saves = Checkpoint(ROOT + "/saved", every_steps=3)
cvkit.fit(model, batches, batches, epochs=4, optimizer="sgd", lr=0.1, callbacks=[board, Kill(), saves], resume=True,
          progress=False, preflight=False, device="cpu", seed=0)
"""


def everything(root):
    """A run with every option, on images on disk."""
    cvkit.data.write_shapes(root / "data/train", per_class=8, size=16, seed=0)
    cvkit.data.write_shapes(root / "data/val", per_class=4, size=16, seed=1)
    data = cvkit.data.from_folder(root / "data", size=16, batch_size=8)
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3, stride=2),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(16, 3),
    )
    head, rest = net[5].parameters(), net[:5].parameters()
    groups = [{"params": head, "lr": 0.02, "name": "head"}, {"params": rest, "lr": 0.01}]
    board = TensorBoard(
        root / "logs/full",
        every_steps=1,
        histograms=True,
        graph=True,
        images=6,
        embeddings=10,
        hparams={"lr": 0.02, "augment": "none", "balanced": True},
        figures=True,
        text="The **first** run.",
    )
    optimizer = torch.optim.SGD(groups)
    result = cvkit.fit(
        net,
        data.train,
        data.val,
        epochs=2,
        optimizer=optimizer,
        callbacks=[board],
        progress=False,
        seed=0,
        device="cpu",
    )
    return result, net, data


def killed(root):
    """A run killed in its third epoch, two steps after it was saved, and resumed."""
    script = SCRIPT.replace("ROOT", repr(str(root / "logs")))
    first = subprocess.run([sys.executable, "-c", script.replace("LAST_STEP", "11")], capture_output=True, text=True)
    assert first.returncode == -signal.SIGKILL, first.stderr
    exec(compile(script.replace("LAST_STEP", "-1"), "script", "exec"), {"__name__": "again"})


class Page:
    """What TensorBoard answers."""

    def __init__(self, address):
        self.address = address

    def raw(self, path, data=None, **query):
        url = f"{self.address}/data/{path}" + (f"?{urllib.parse.urlencode(query)}" if query else "")
        body = None if data is None else json.dumps(data).encode()
        request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=30) as answer:
            return answer.read()

    def __call__(self, path, data=None, **query):
        return json.loads(self.raw(path, data, **query))

    def scalars(self, run, tag):
        return [(step, value) for _, step, value in self("plugin/scalars/scalars", run=run, tag=tag)]

    def image(self, run, tag, index):
        listed = self("plugin/images/images", run=run, tag=tag, sample=0)
        content = self.raw(f"plugin/images/individualImage?{listed[index]['query']}")
        return np.asarray(Image.open(BytesIO(content)).convert("RGB"))


@contextlib.contextmanager
def served(logs, runs, *options):
    """TensorBoard over a directory, once it has read it."""
    command = [
        sys.executable,
        "-m",
        "tensorboard.main",
        "--logdir",
        str(logs),
        "--port",
        "0",
        "--host",
        "127.0.0.1",
        *options,
    ]
    said = logs.parent / "said.txt"
    with said.open("w") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, env=os.environ | {"NO_PROXY": "*"})
    try:
        end = time.monotonic() + 120
        while not (found := re.search(r"http://127\.0\.0\.1:\d+", said.read_text())):
            assert process.poll() is None, said.read_text()
            assert time.monotonic() < end, said.read_text()
            time.sleep(0.1)
        page = Page(found[0])
        while not _ready(page, runs):
            assert time.monotonic() < end, said.read_text()
            time.sleep(0.2)
        yield page
    finally:
        process.terminate()
        process.wait(20)


def _ready(page, runs):
    """Whether everything has been read: the loader goes through one run after the other."""
    try:
        if set(runs) - set(page("runs")):
            return False
        images, curves = page("plugin/images/tags"), page("plugin/pr_curves/tags")
        return all({"inputs"} <= set(images.get(f"{run}/train", {})) for run in ("full", "killed")) and all(
            "predictions" in images.get(f"{run}/val", {}) and curves.get(f"{run}/val") for run in ("full", "killed")
        )
    except urllib.error.HTTPError:
        return False


RUNS = ["full", "full/train", "full/val", "killed", "killed/train", "killed/val"]


@pytest.fixture(scope="module")
def board(tmp_path_factory):
    """Both runs, and TensorBoard over them."""
    root = tmp_path_factory.mktemp("page")
    result, net, data = everything(root)
    killed(root)
    with served(root / "logs", RUNS) as page:
        page.result, page.net, page.data, page.logs = result, net, data, root / "logs"
        yield page


def near(points, wanted):
    assert [step for step, _ in points] == [step for step, _ in wanted]
    assert [value for _, value in points] == pytest.approx([value for _, value in wanted], rel=1e-5)


def test_training_and_validation_share_their_charts(board):
    history = board.result.history
    for tag in ("loss", "accuracy"):
        for phase in ("train", "val"):
            points = list(zip(history["step"], history[f"{phase}_{tag}"], strict=True))
            near(board.scalars(f"full/{phase}", tag), points)


def test_each_group_has_its_learning_rate_and_each_step_its_gauges(board):
    steps = list(range(1, 7))
    near(board.scalars("full/train", "step/lr/head"), [(step, 0.02) for step in steps])
    near(board.scalars("full/train", "step/lr/1"), [(step, 0.01) for step in steps])
    for tag in ("step/loss", "step/gradient_norm", "step/images_per_second", "memory/process_MiB"):
        points = board.scalars("full/train", tag)
        assert [step for step, _ in points] == steps
        assert all(value > 0 for _, value in points)


def test_histograms_hold_every_weight_and_gradient(board):
    tags = set(board("plugin/histograms/tags")["full/train"])
    names = dict(board.net.named_parameters())
    assert tags == {f"{kind}/{name}" for kind in ("weights", "gradients") for name in names}
    last = board("plugin/histograms/histograms", run="full/train", tag="weights/0.weight")
    assert [step for _, step, _ in last] == [3, 6]
    bins = last[-1][2]
    weight = board.net[0].weight.detach()
    assert sum(count for _, _, count in bins) == weight.numel()
    filled = [(left, right) for left, right, count in bins if count]
    assert filled[0][0] == pytest.approx(weight.min().item(), rel=1e-5)
    assert filled[-1][1] == pytest.approx(weight.max().item(), rel=1e-5)


def test_the_graph_has_the_layers_in_their_order(board):
    assert board("plugin/graphs/info")["full/train"]["run_graph"] is True
    text = board.raw("plugin/graphs/graph", run="full/train").decode()
    nodes = re.findall(r'node \{\s+name: "([^"]+)"', text)
    layers = ["input", "0[Conv2d]/conv2d", "2[ReLU]/relu", "5[Linear]/linear", "output"]
    assert [name for name in nodes if name in layers] == layers
    assert re.search(r'name: "5\[Linear\]/linear"\s+op: "linear"\s+input: "4\[Flatten\]/flatten"', text)
    assert "size: 16" in text


def test_images_are_those_that_the_model_saw(board):
    shown = board.image("full/train", "inputs", 0)
    board.data.train.set_epoch(0)
    inputs, _ = next(iter(board.data.train))
    first = board.data.train.transform.denormalize(inputs[:1])[0].mul(255).round().permute(1, 2, 0).numpy()
    assert np.array_equal(shown[:64:4, :64:4], first.astype(np.uint8))  # enlarged four times
    assert [one["step"] for one in board("plugin/images/images", run="full/train", tag="inputs", sample=0)] == [1, 4]


def test_predictions_and_the_confusion_matrix_are_drawn_each_epoch(board):
    for tag in ("predictions", "confusion"):
        listed = board("plugin/images/images", run="full/val", tag=tag, sample=0)
        assert [one["step"] for one in listed] == [3, 6]
        assert board.image("full/val", tag, 1).std() > 10


def test_precision_recall_curves_are_there_for_all_and_for_each_class(board):
    tags = {tag.removeprefix("precision_recall/") for tag in board("plugin/pr_curves/tags")["full/val"]}
    assert tags == {"all classes", "circle", "square", "triangle"}
    (curve,) = board("plugin/pr_curves/pr_curves", run="full/val", tag="precision_recall/circle").values()
    assert [one["step"] for one in curve] == [3, 6]
    assert curve[-1]["true_positives"][0] == 4  # everything is a circle at threshold 0
    assert curve[-1]["false_positives"][0] == 8


def test_the_projector_has_features_labels_and_images(board):
    assert "full/val" in board("plugin/projector/runs")
    (config,) = board("plugin/projector/info", run="full/val")["embeddings"]
    name = config["tensorName"]
    assert (name, config["tensorShape"]) == ("last layer's input", [10, 16])
    content = board.raw("plugin/projector/tensor", run="full/val", name=name)
    rows = np.frombuffer(content, np.float32).reshape(10, 16)
    taken = [0, 1, 2, 3, 4, 5, 6, 8, 9, 10]  # seven of the first eight, three of the four others
    batch = torch.cat([inputs for inputs, _ in board.data.val])[taken]
    with torch.no_grad():
        assert rows == pytest.approx(board.net[:-1](batch).numpy(), abs=1e-4)
    table = [
        line.split("\t")
        for line in board.raw("plugin/projector/metadata", run="full/val", name=name).decode().splitlines()
    ]
    assert table[0] == ["label", "prediction", "answer"]
    assert [row[0] for row in table[1:]] == ["circle"] * 4 + ["square"] * 3 + ["triangle"] * 3
    sprite = Image.open(BytesIO(board.raw("plugin/projector/sprite_image", run="full/val", name=name)))
    side = config["sprite"]["singleImageDim"][0]
    assert sprite.size == (4 * side, 4 * side)


def sessions(board):
    asked = {
        "startIndex": 0,
        "sliceSize": 10,
        "allowedStatuses": ["STATUS_UNKNOWN", "STATUS_SUCCESS", "STATUS_FAILURE", "STATUS_RUNNING"],
        "colParams": [{"metric": {"group": "val", "tag": "loss"}}],
    }
    groups = board("plugin/hparams/session_groups", asked)["sessionGroups"]
    return {one["name"]: one for group in groups for one in [{**group["sessions"][0], "hparams": group["hparams"]}]}


def test_hyperparameters_stand_beside_the_last_metrics(board):
    found = sessions(board)["full"]
    assert found["hparams"] == {"lr": 0.02, "augment": "none", "balanced": True}
    assert found["status"] == "STATUS_SUCCESS"
    values = {(one["name"]["group"], one["name"]["tag"]): one["value"] for one in found["metricValues"]}
    wanted = {("train", "loss"), ("train", "accuracy"), ("val", "loss"), ("val", "accuracy")}
    assert set(values) == wanted
    for phase, tag in wanted:
        assert values[phase, tag] == pytest.approx(board.result.history[-1][f"{phase}_{tag}"], rel=1e-5)


def test_the_texts_describe_run_and_model(board):
    assert set(board("plugin/text/tags")["full/train"]) == {"settings/text_summary", "model/text_summary"}
    (settings,) = board("plugin/text/text", run="full/train", tag="settings/text_summary")
    assert settings["step"] == 0
    assert "<p>The <strong>first</strong> run.</p>" in settings["text"]
    assert re.search(r"<td>batch size</td>\s*<td>8</td>", settings["text"])
    (model,) = board("plugin/text/text", run="full/train", tag="model/text_summary")
    total = sum(one.numel() for one in board.net.parameters())
    assert f"<strong>Sequential</strong>: {total} parameters" in model["text"]


def check_no_point_is_there_twice(page):
    every, epochs, begins = list(range(1, 17)), [4, 8, 12, 16], [1, 5, 9, 13]
    for tag in ("step/loss", "step/lr", "step/gradient_norm"):
        assert [step for step, _ in page.scalars("killed/train", tag)] == every
    for run in ("train", "val"):
        assert [step for step, _ in page.scalars(f"killed/{run}", "loss")] == epochs
    for tag in ("weights/1.weight", "gradients/1.weight"):
        points = page("plugin/histograms/histograms", run="killed/train", tag=tag)
        assert [step for _, step, _ in points] == epochs
    for run, tag, steps in (("train", "inputs", begins), ("val", "predictions", epochs), ("val", "confusion", epochs)):
        listed = page("plugin/images/images", run=f"killed/{run}", tag=tag, sample=0)
        assert [one["step"] for one in listed] == steps
    (curve,) = page("plugin/pr_curves/pr_curves", run="killed/val", tag="precision_recall/all classes").values()
    assert [one["step"] for one in curve] == epochs
    for tag in ("settings/text_summary", "model/text_summary"):
        assert len(page("plugin/text/text", run="killed/train", tag=tag)) == 1
    assert sessions(page)["killed"]["status"] == "STATUS_SUCCESS"


def test_a_killed_and_resumed_run_has_each_point_once(board):
    assert len(list((board.logs / "killed/train").glob("events.*"))) == 2
    check_no_point_is_there_twice(board)


@pytest.mark.slow
def test_so_it_has_for_the_loader_that_reads_everything(board):
    with served(board.logs, RUNS, "--load_fast=false") as page:
        check_no_point_is_there_twice(page)
        near(page.scalars("full/val", "loss"), board.scalars("full/val", "loss"))
