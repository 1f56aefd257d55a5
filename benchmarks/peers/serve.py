"""The process of one contender: checks that it trains what the hand-written loop trains, then times runs on demand."""

from __future__ import annotations

import gc
import importlib
import json
import os
import sys
import time
from typing import Any, TextIO

CHECK_STEPS = 8


def serve(name: str, descriptor: int) -> None:
    """Answers one JSON line on ``descriptor`` for each on standard input, until that ends.

    Args:
        name: The contender's module in ``peers``.
        descriptor: Where answers go; standard output and error are the terminal that bars are drawn on.
    """
    with os.fdopen(descriptor, "w", buffering=1) as answers:
        contender = _open(name, answers)
        if contender is not None:
            for line in sys.stdin:
                _answer(answers, seconds=_timed(contender, **json.loads(line)))


def _answer(answers: TextIO, **values: Any) -> None:
    answers.write(json.dumps(values) + "\n")


def _open(name: str, answers: TextIO) -> Any:
    """Imports a contender and answers whether it is fit to be measured."""
    try:
        import torch

        torch.set_num_threads(1)
        contender = importlib.import_module(f"peers.{name}")
        difference = check(contender.prepare)
    except ModuleNotFoundError as error:
        _answer(answers, skip=f"not installed ({error})")
    except Exception as error:  # whatever a peer of some version dies of is the reason why its row is missing
        _answer(answers, skip=f"does not work here: {type(error).__name__}: {error}")
    else:
        _answer(answers, difference=difference)
        return contender
    return None


def check(prepare: Any) -> float:
    """Trains a few steps, bar off and on, and compares weights, loss and accuracy with the hand-written loop's.

    Returns:
        The largest difference between two weights.

    Raises:
        RuntimeError: They are further apart than rounding explains.
    """
    import torch

    from peers.work import Batches, Work, hand_written

    batches = Batches(CHECK_STEPS)
    reference = Work(batches)
    expected = hand_written(reference)()
    weights = torch.nn.utils.parameters_to_vector(reference.model.parameters()).detach()
    worst = 0.0
    for bar in (False, True):
        work = Work(batches)
        tracked = prepare(work, bar)()
        trained = torch.nn.utils.parameters_to_vector(work.model.parameters()).detach()
        worst = max(worst, (trained - weights).abs().max().item())
        if worst > 1e-5:
            raise RuntimeError(f"it trains other weights: they differ by up to {worst:.1e}")
        for what, got, wanted in zip(("loss", "accuracy"), tracked, expected, strict=True):
            if got is not None and wanted is not None and abs(got - wanted) > 1e-4:
                raise RuntimeError(f"it reports another {what}: {got} instead of {wanted}")
    return worst


def _timed(contender: Any, kind: str, steps: int) -> float:
    """Returns the CPU seconds of one run over ``steps`` batches: what is set up before ``fit`` does not count."""
    from peers.work import Batches, Work, hand_written

    work = Work(Batches(steps))
    run = hand_written(work) if kind == "hand" else contender.prepare(work, kind == "on")
    gc.collect()
    start = time.process_time()
    run()
    return time.process_time() - start
