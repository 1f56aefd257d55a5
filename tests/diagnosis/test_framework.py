"""What fit and preflight make of findings, that they leave no trace, and that crashes name the line."""

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import cvkit
from cvkit import seeding
from cvkit.diagnosis import TABLE, Finding, Report
from cvkit.errors import ArgumentError, CvkitWarning, PreflightError, UnknownNameError

INPUTS, TARGETS = torch.randn(20, 3, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(20) % 3
BATCHES = list(zip(INPUTS.split(10), TARGETS.split(10), strict=True))
FIT = {"epochs": 1, "progress": False, "device": "cpu"}


def network(*end, norm=True):
    torch.manual_seed(0)
    middle = [nn.BatchNorm2d(4), nn.Dropout(0.2)] if norm else []
    return nn.Sequential(nn.Conv2d(3, 4, 3), *middle, nn.ReLU(), nn.Flatten(), nn.Linear(144, 3), *end)


def test_a_report_is_a_list_that_prints():
    report = cvkit.preflight(network(nn.Softmax(1)), BATCHES, lr=0.0)
    assert report.codes == ["CV501", "CV311"]
    text = str(report)
    assert text.startswith(
        "warning[CV501]: the learning rate is 0: nothing is trained\n       got: lr=0 and no schedule\n"
    )
    assert "\n      page: " in text
    assert "docs/errors/CV311.rst" in text
    assert repr(report) == text
    assert "2 warnings (" in text


def test_an_empty_report_is_false_and_says_how_much_was_looked_at():
    report = cvkit.preflight(network(), BATCHES)
    assert not report
    assert report == []
    assert str(report).startswith("nothing found (")
    assert report.checks > 20
    assert "<p>cvkit: nothing found" in report._repr_html_()


def test_a_notebook_shows_a_table_with_links_and_nothing_unescaped():
    report = Report([Finding("CV801", "error", "a <b> fails", got="1 < 2", fix="x & y")], checks=1)
    shown = report._repr_html_()
    assert "a &lt;b&gt; fails" in shown
    assert "1 &lt; 2" in shown
    assert 'CV801.rst">CV801</a>' in shown
    assert "1 error (1 checks" in shown


def test_errors_come_first_and_are_raised_all_at_once():
    model = network(nn.Softmax(1))
    with pytest.raises(PreflightError) as caught:
        cvkit.fit(model, [(INPUTS, TARGETS + 1)], loss=lambda o, t: nn.functional.cross_entropy(o, t), lr=0.0, **FIT)
    assert [one.code for one in caught.value.findings] == ["CV802"]
    report = Report([Finding("CV501", "warning", "w"), Finding("CV305", "error", "a"), Finding("CV801", "error", "b")])
    assert report.codes == ["CV305", "CV801", "CV501"]
    with pytest.raises(PreflightError, match=r"^2 mistakes were found before the first epoch\nCV305: a\nCV801: b$"):
        report.raise_errors()


def test_each_warning_is_given_once_and_strict_raises_it():
    with pytest.warns(CvkitWarning) as caught:
        cvkit.fit(network(nn.Softmax(1)), BATCHES, lr=0.0, **FIT)
    assert [str(one.message)[:6] for one in caught] == ["CV501:", "CV311:"]
    with pytest.raises(PreflightError) as raised:
        cvkit.fit(network(nn.Softmax(1)), BATCHES, lr=0.0, preflight="strict", **FIT)
    assert [one.code for one in raised.value.findings] == ["CV501", "CV311"]


def test_codes_are_left_out():
    cvkit.fit(network(nn.Softmax(1)), BATCHES, lr=0.0, ignore=("CV501", "CV311"), **FIT)
    assert cvkit.preflight(network(nn.Softmax(1)), BATCHES, lr=0.0, ignore=["CV311"]).codes == ["CV501"]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (
            {"ignore": "CV311"},
            ArgumentError,
            r"ignore cannot be used\n  got: 'CV311'\n(.*\n)*  fix: ignore=\('CV311',\)",
        ),
        ({"ignore": ("CV999",)}, UnknownNameError, "unknown code in ignore 'CV999'"),
        ({"ignore": 3}, ArgumentError, "ignore cannot be used"),
        ({"preflight": "deeper"}, ArgumentError, "preflight cannot be used\n  got: 'deeper'"),
    ],
)
def test_values_that_cannot_be_used_are_refused(options, error, message):
    with pytest.raises(error, match=message):
        cvkit.fit(network(), BATCHES, **options, **FIT)


@pytest.mark.parametrize("deep", [False, True])
def test_no_trace_is_left(deep):
    model = network()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    generator = torch.Generator().manual_seed(5)
    loader = DataLoader(TensorDataset(INPUTS, TARGETS), 8, shuffle=True, generator=generator)
    model[1].eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    random, drawn = seeding.capture(), generator.get_state()
    schedules = []

    def schedule(optimizer, total):
        schedules.append(torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, total))
        return schedules[-1]

    report = cvkit.preflight(model, loader, loader, optimizer=optimizer, schedule=schedule, epochs=4, deep=deep)
    assert report.failed == {}
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    assert not optimizer.state
    assert optimizer.param_groups[0]["lr"] == 0.01
    assert schedules[0].last_epoch == 0
    assert model.training
    assert not model[1].training
    assert torch.equal(random["torch"], seeding.capture()["torch"])
    assert torch.equal(drawn, generator.get_state())
    assert not any(one._forward_hooks or one._forward_pre_hooks for one in model.modules())


def test_training_is_the_same_with_and_without_it():
    finals = []
    for preflight in (True, False):
        model = network()
        loader = DataLoader(TensorDataset(INPUTS, TARGETS), 8, shuffle=True)
        cvkit.fit(model, loader, loader, seed=3, schedule="onecycle", preflight=preflight, **(FIT | {"epochs": 2}))
        finals.append(model.state_dict())
    assert all(torch.equal(one, finals[1][name]) for name, one in finals[0].items())


class Broken(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = nn.Conv2d(3, 4, 3)
        self.head = nn.Linear(100, 3)

    def forward(self, x):
        x = self.features(x).relu()
        return self.head(x.view(len(x), 101))  # this line


def test_a_crash_names_the_users_line_and_not_the_last_layer():
    (found,) = cvkit.preflight(Broken(), BATCHES)
    assert found.code == "CV804"
    assert found.what == "the forward (Broken) fails on the first batch of train"
    assert "test_framework.py:" in found.where
    assert found.where.endswith(", in forward: return self.head(x.view(len(x), 101))  # this line")
    assert found.fix == "each sample has 144 values here: x.flatten(1) gives (10, 144)"


def test_a_step_that_fails_is_not_blamed_on_a_layer():
    def step(model, batch, state):
        outputs = model(batch[0])
        return nn.functional.cross_entropy(outputs, batch[1]) + outputs[:, 7].mean()

    (found,) = cvkit.preflight(network(), BATCHES, step=step)
    assert found.code == "CV802"
    assert found.what == "your step fails on the first batch of train"
    assert "in step: return nn.functional" in found.where


@pytest.mark.parametrize(
    ("run", "name"),
    [
        (lambda model, data: cvkit.evaluate(model, data, device="cpu"), "data"),
        (lambda model, data: cvkit.find_lr(model, data, device="cpu"), "train"),
        (lambda model, data: cvkit.fit(model, data, **FIT), "train"),
    ],
)
def test_evaluate_and_find_lr_answer_as_fit_does(run, name):
    with pytest.raises(PreflightError) as caught:
        run(network(), [(INPUTS, TARGETS + 1)])
    assert str(caught.value).startswith(f"CV305: the model has 3 outputs and the targets of {name} need 4\n")
    with pytest.raises(PreflightError) as caught:
        run(network(), [(INPUTS[:, :1], TARGETS)])
    assert f"in layer '0' (Conv2d) on the first batch of {name}" in str(caught.value)


def test_a_cat_that_does_not_fit_says_by_how_much_to_pad():
    class Skip(nn.Module):
        def __init__(self):
            super().__init__()
            self.down, self.up, self.end = nn.Conv2d(3, 3, 3, 2, 1), nn.Upsample(scale_factor=2), nn.Conv2d(6, 3, 1)

        def forward(self, x):
            return self.end(torch.cat([x, self.up(self.down(x))], 1)).mean((2, 3))

    (found,) = cvkit.preflight(Skip(), [(INPUTS[:, :, :7, :7], TARGETS)])
    assert found.fix == (
        "tensors of 7 and 8 meet in torch.cat(…, dim=1): pad tensor number 0 by 1, e.g. F.pad(x, (0, 1, 0, 1)), crop the "
        "other, or feed images whose sides are divisible by every stride"
    )


@pytest.mark.parametrize(
    ("classes", "mask", "fix"),
    [
        (2, [0, 255], "map 255 to 1: masks // 255, or mask_values=(0, 255) in cvkit.data.ParallelDataset"),
        (3, [0, 2, 255], "255 marks pixels without a label: loss=torch.nn.CrossEntropyLoss(ignore_index=255)"),
    ],
)
def test_masks_of_255_are_not_answered_with_256_classes(classes, mask, fix):
    masks = torch.tensor(mask).repeat(64)[:64].view(1, 8, 8)
    (found,) = cvkit.preflight(nn.Conv2d(3, classes, 1), [(INPUTS[:1], masks)])
    assert found.fix == fix


def test_no_message_says_nothing():
    for check in TABLE.values():
        assert check.title
        assert check.severity in ("error", "warning")
        assert check.code[:2] == "CV"
        assert len(check.code) == 5


def test_a_check_that_fails_does_not_end_the_run(monkeypatch):
    def fails(probe):
        raise ValueError("no")

    monkeypatch.setitem(
        TABLE, "CV501", type(TABLE["CV501"])("CV501", "warning", "t", frozenset({"settings"}), "free", False, fails)
    )
    report = cvkit.preflight(network(), BATCHES)
    assert report.failed == {"CV501": "ValueError: no"}
    assert "could not judge: CV501" in str(report)


def test_a_run_that_is_continued_with_fewer_epochs_than_it_has_says_so(tmp_path):
    def run(epochs):
        checkpoint = cvkit.callbacks.Checkpoint(tmp_path, monitor="train_loss")
        return cvkit.fit(network(), BATCHES, resume=True, callbacks=[checkpoint], **(FIT | {"epochs": epochs}))

    run(3)
    assert run(3).epochs == 3  # the same call once more does nothing, as it should
    with pytest.warns(CvkitWarning, match=r"CV514: nothing is trained(.*\n)*.*fix: epochs=5 for 2 more"):
        run(2)


def test_predict_names_the_layer_and_the_line():
    with pytest.raises(
        PreflightError, match=r"CV801: the forward fails in layer '0' \(Conv2d\) on the first batch of data"
    ):
        cvkit.predict(network(), [INPUTS[:, :1]], device="cpu")
    with pytest.raises(PreflightError, match=r"(?s)CV804: the forward \(Broken\) fails.*in forward: return self.head"):
        cvkit.predict(Broken(), INPUTS, device="cpu")
