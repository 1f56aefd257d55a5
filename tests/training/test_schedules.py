"""Schedules by name: each a pure function of step and total, with a warm-up, equal to torch's figures and resumed exactly."""

import math

import pytest
import torch
from torch import nn
from torch.optim import SGD, lr_scheduler
from torch.utils.data import DataLoader, TensorDataset

from cvkit.callbacks import Checkpoint
from cvkit.errors import ArgumentError, CheckpointError
from cvkit.training import Callback, fit
from cvkit.training.schedules import factor, resolve_schedules, shapes, warmup_steps

TOTAL = 42


def optimizer(momentum=0.9):
    return SGD([nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(2))], lr=1.0, momentum=momentum)


def rates(schedule, steps=TOTAL):
    found = []
    for _ in range(steps):
        found.append(schedule.optimizer.param_groups[0]["lr"])
        schedule.optimizer.step()
        schedule.step()
    return found


def by_name(name, warmup=0, total=TOTAL):
    return resolve_schedules(name, [optimizer()], total, warmup)[0]


@pytest.mark.parametrize(
    ("name", "reference"),
    [
        ("constant", lambda o: lr_scheduler.ConstantLR(o, factor=1.0)),
        ("cosine", lambda o: lr_scheduler.CosineAnnealingLR(o, TOTAL)),
        ("cosine_restarts", lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, TOTAL // 7, T_mult=2)),
        ("exponential", lambda o: lr_scheduler.ExponentialLR(o, 0.01 ** (1 / TOTAL))),
        ("linear", lambda o: lr_scheduler.LinearLR(o, 1.0, 0.0, total_iters=TOTAL)),
        ("onecycle", lambda o: lr_scheduler.OneCycleLR(o, max_lr=1.0, total_steps=TOTAL)),
        ("poly", lambda o: lr_scheduler.PolynomialLR(o, TOTAL, power=0.9)),
        ("step", lambda o: lr_scheduler.StepLR(o, TOTAL // 3, gamma=0.1)),
    ],
)
def test_the_table_has_torchs_figures(name, reference):
    theirs = rates(reference(optimizer()))
    assert [factor(name, step, TOTAL) for step in range(TOTAL)] == pytest.approx(theirs, abs=1e-12)
    assert rates(by_name(name)) == pytest.approx(theirs, abs=1e-12)


def test_the_inverse_root_has_the_papers_figures():
    # Vaswani et al., 2017, equation 3, with its own peak as 1; its step counts from 1, and the peak is at the warm-up's end
    warm = 8
    paper = [min(n**-0.5, n * warm**-1.5) * warm**0.5 for n in range(1, TOTAL + 1)]
    ours = [factor("inverse_sqrt", step, TOTAL, warm) for step in range(TOTAL)]
    assert ours[warm:] == pytest.approx(paper[warm - 1 : -1])
    assert ours[:warm] == pytest.approx([(n + 1) / (warm + 1) for n in range(warm)])


def test_every_name_of_the_table_has_a_test_of_its_figures():
    assert set(shapes) == {
        *("constant", "cosine", "cosine_restarts", "exponential", "inverse_sqrt"),
        *("linear", "onecycle", "poly", "step"),
    }


@pytest.mark.parametrize("name", sorted(set(shapes) - {"onecycle"}))
def test_a_warm_up_rises_in_equal_parts_to_the_full_rate_and_the_rest_follows(name):
    warm = 6
    found = rates(by_name(name, warm))
    assert found[: warm + 1] == pytest.approx([(n + 1) / 7 for n in range(7)])
    if name != "inverse_sqrt":  # which takes its scale from the warm-up
        assert found[warm:] == pytest.approx([factor(name, n, TOTAL - warm) for n in range(TOTAL - warm)])
    assert max(found) == 1.0
    assert min(found) >= 0


def test_onecycle_rises_for_the_warm_up():
    theirs = rates(lr_scheduler.OneCycleLR(optimizer(), max_lr=1.0, total_steps=TOTAL, pct_start=10 / TOTAL))
    assert rates(by_name("onecycle", 10)) == theirs
    assert [factor("onecycle", step, TOTAL, 10) for step in range(TOTAL)] == pytest.approx(theirs, abs=1e-12)


@pytest.mark.parametrize("name", list(shapes))
@pytest.mark.parametrize("total", [1, 2, 7])
def test_short_runs_have_rates_too(name, total):
    assert all(0 <= factor(name, step, total) <= 1 for step in range(total))
    assert all(math.isfinite(rate) for rate in rates(by_name(name, 0, total), total))


def test_a_share_of_the_run_is_rounded_and_never_none():
    assert [warmup_steps(share, 100) for share in (0.0, 0.05, 0.001, 7)] == [0, 5, 1, 7]


@pytest.mark.parametrize("given", [1.0, -1, 100, -0.1, float("nan"), True, "5%"])
def test_a_warm_up_that_cannot_be_is_refused(given):
    with pytest.raises(ArgumentError) as caught:
        warmup_steps(given, 100)
    assert str(caught.value) == (
        "warmup cannot be used\n"
        f"  got: {given!r}, in a run of 100 updates\n"
        "  expected: a share of the run from 0 to below 1, or an integer number of updates below that of the run\n"
        "  fix: pass e.g. warmup=0.05"
    )


def test_a_factory_brings_its_own_warm_up():
    with pytest.raises(ArgumentError, match="warmup has no effect beside a schedule that is a factory"):
        resolve_schedules(lambda o, total: lr_scheduler.ConstantLR(o), [optimizer()], TOTAL, 0.1)


def test_a_warm_up_alone_is_followed_by_the_constant_rate():
    (schedule,) = resolve_schedules(None, [optimizer()], 10, 4)
    assert rates(schedule, 10) == pytest.approx([0.2, 0.4, 0.6, 0.8, *[1.0] * 6])


# --- in a run


def data():
    generator = torch.Generator().manual_seed(0)
    return DataLoader(
        TensorDataset(torch.randn(24, 4, generator=generator), torch.randint(0, 3, (24,), generator=generator)), 4
    )


class Stopping(Callback):
    def __init__(self, at):
        self.at, self.rates = at, []

    def on_batch_end(self, state):
        self.rates.append(state.lr)
        if state.step == self.at:
            state.request_stop("enough")


def run(directory, *, at=None, schedule="cosine", warmup: float = 0.2, **options):
    torch.manual_seed(0)
    model, seen = nn.Linear(4, 3), Stopping(at)
    fit(
        model, data(), epochs=3, schedule=schedule, warmup=warmup, lr=0.1, device="cpu", progress=False, resume=True,
        callbacks=[seen, Checkpoint(directory, monitor=None)], **options,
    )  # fmt: skip
    return model, seen.rates


@pytest.mark.parametrize("name", list(shapes))
@pytest.mark.parametrize("at", [2, 9])
def test_a_run_with_a_warm_up_is_continued_exactly(tmp_path, name, at):
    whole, all_rates = run(tmp_path / "whole", schedule=name)
    _, first = run(tmp_path / "cut", schedule=name, at=at)
    cut, rest = run(tmp_path / "cut", schedule=name)
    assert first + rest == all_rates
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), cut.parameters(), strict=True))


def test_another_warm_up_is_another_run(tmp_path):
    run(tmp_path, at=4)
    with pytest.raises(CheckpointError, match=r"the schedule's warmup: 4 then, 6 now"):
        run(tmp_path, warmup=6)
    run(tmp_path, warmup=6, override=("schedule",))
