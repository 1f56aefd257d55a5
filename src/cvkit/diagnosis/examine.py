"""The examination: stage by stage, each check where what it needs is there."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable

from torch import Tensor

from cvkit.diagnosis.crash import explain
from cvkit.diagnosis.finding import Finding, Report
from cvkit.diagnosis.probe import Probe, Side
from cvkit.diagnosis.table import NEEDS, TABLE, Check, Need
from cvkit.diagnosis.trace import Trace

__all__ = ["Examination"]


class Examination:
    """Runs the checks on a probe.

    Args:
        probe: What is looked at.
        deep: Whether checks that take seconds run as well.
        ignore: Codes that are left out.
        only: The stages that run, by the names of needs; all by default.
    """

    def __init__(
        self, probe: Probe, *, deep: bool = False, ignore: Collection[str] = (), only: Collection[Need] = NEEDS
    ) -> None:
        self.probe = probe
        self.table = [one for one in TABLE.values() if one.code not in ignore and (deep or one.cost != "deep")]
        self.ignore = ignore
        self.only = only
        self.findings: list[Finding] = []
        self.failed: dict[str, str] = {}
        self.count = 0

    def run(self) -> Report:
        """Returns what was found.

        A mistake that keeps the model from running ends the stages that run it; the others go on, so that all that can be said
        is said at once.
        """
        began = time.perf_counter()
        for stage in ("settings", "labels", "both_datasets"):
            self._check(stage)
        if self._train() and self._val():
            self._further()
        return Report(self.findings, checks=self.count, seconds=time.perf_counter() - began, failed=self.failed)

    def _train(self) -> bool:
        side = self.probe.train
        sound = self._side(side)
        if sound and "gradients" in self.only:
            if self.probe.run_backward(side.trace):
                self._check("gradients")
            else:
                sound = self._crashed(side, side.trace, side.batch)
        side.trace.layers.clear()
        return sound

    def _val(self) -> bool:
        side = self.probe.val
        sound = side is None or self._side(side)
        if side is not None:
            side.trace.layers.clear()
        return sound

    def _side(self, side: Side) -> bool:
        """Runs the first batch of one side; returns whether it has come through without an error."""
        probe, trace = self.probe, side.trace
        side.batch = probe.runner.first_batch(side.name)
        if not self._check("batch", side):
            return False
        if not probe.run_forward(side, trace, side.batch):
            return self._crashed(side, trace, side.batch)
        if not self._check("outputs", side):
            return False
        if not probe.run_loss(side, trace, side.batch):
            return self._crashed(side, trace, side.batch)
        return self._check("loss", side) and isinstance(trace.loss, Tensor)

    def _further(self) -> None:
        """What runs the model once more: in evaluation mode, on the epoch's last batch, and after an update."""
        if "evaluation" in self.only:
            self._check("evaluation")
        if "second_batch" in self.only:
            for side in self.probe.sides:
                side.last = self.probe.runner.last_batch(side.name)
                if side.last is not None:
                    self._last(side)
        if "update" in self.only and self.probe.settings.optimizers and self.probe.run_update():
            self._check("update")

    def _last(self, side: Side) -> None:
        trace = side.last_trace = Trace()
        done = self.probe.run_forward(side, trace, side.last) and self.probe.run_loss(side, trace, side.last)
        trace.layers.clear()
        if not done:
            self._crashed(side, trace, side.last)
        else:
            self._check("second_batch", side)

    def _crashed(self, side: Side, trace: Trace, batch: object) -> bool:
        finding = explain(self.probe, side, trace, batch)
        if finding.code not in self.ignore:
            self._add([finding])
        return False

    def _check(self, stage: Need, side: Side | None = None) -> bool:
        """Runs the checks whose last need is a stage.

        Returns:
            Whether none of them has found an error.
        """
        before = sum(one.severity == "error" for one in self.findings)
        for one in self.table:
            if stage not in self.only or not one.needs or max(one.needs, key=NEEDS.index) != stage:
                continue
            if side is not None and not one.each and not side.training:
                continue
            sides = [side] if side is not None else self.probe.sides
            for given in [(self.probe, each) for each in sides] if one.each else [(self.probe,)]:
                self._run(one, *given)
        return before == sum(one.severity == "error" for one in self.findings)

    def _run(self, one: Check, *given: object) -> None:
        self.count += 1
        try:
            self._add(one(*given))
        except Exception as error:  # a check must not end the run of a program that it does not understand
            self.failed[one.code] = f"{type(error).__name__}: {error}"

    def _add(self, findings: Iterable[Finding]) -> None:
        """Adds findings; what was said of the training side is not said once more of the validation."""
        known = {one.code for one in self.findings}
        self.findings += [one for one in findings if one.code not in known]
