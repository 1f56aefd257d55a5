import pytest
import torch
from torch import nn

import cvkit
from cvkit.callbacks import EMA, Checkpoint
from cvkit.errors import ArgumentError, CheckpointError
from cvkit.training import Callback, load_checkpoint


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3))


def batches(count=5, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return [
        (torch.randn(8, 4, generator=generator), torch.randint(0, 3, (8,), generator=generator)) for _ in range(count)
    ]


def run(*callbacks, epochs=2, model=None, **options):
    model = model if model is not None else network()
    torch.manual_seed(3)
    return cvkit.fit(
        model, batches(), batches(3, 9), epochs=epochs, callbacks=callbacks, progress=False, preflight=False, **options
    )


class Weights(Callback):
    """Keeps the trained weights after each update, and what a validation batch is computed with."""

    def __init__(self):
        self.trained, self.validated, self.step = [], [], 0

    def on_batch_end(self, state):
        if state.step != self.step:
            self.step = state.step
            self.trained.append({k: v.clone() for k, v in state.model.state_dict().items()})

    def on_validation_batch_end(self, state):
        self.validated.append({k: v.clone() for k, v in state.model.state_dict().items()})


def same(a, b):
    return list(a) == list(b) and all(torch.equal(a[k], b[k]) for k in a)


def by_hand(start, trained, decay):
    average = {k: v.clone() for k, v in start.items()}
    for n, weights in enumerate(trained):
        d = min(decay, (1 + n) / (10 + n))
        for k, v in weights.items():
            average[k] = torch.lerp(average[k], v, 1 - d) if v.is_floating_point() else v.clone()
    return average


@pytest.mark.parametrize("accumulate", [1, 2])
def test_it_is_the_average_by_hand_and_validates_saves_and_returns_it(tmp_path, accumulate):
    start, seen = network().state_dict(), Weights()
    result = run(EMA(0.9), seen, Checkpoint(tmp_path), accumulate=accumulate)
    expected = by_hand(start, seen.trained, 0.9)
    assert same(result.model.state_dict(), expected)
    assert same(seen.validated[-1], expected)
    content = load_checkpoint(tmp_path / "last.pt")
    assert same(content["model"], expected)
    assert same(content["training"]["weights"], seen.trained[-1])


def test_training_goes_on_with_its_own_weights():
    plain, averaged = Weights(), Weights()
    run(plain)
    run(EMA(0.9), averaged)
    for one, other in zip(plain.trained, averaged.trained, strict=True):
        assert same(one, other)


def test_what_is_logged_for_validation_is_that_of_the_result():
    result = run(EMA(0.9))
    values = cvkit.evaluate(result.model, batches(3, 9))
    assert values["loss"] == result.history["val_loss"][-1]


def test_a_run_stopped_in_mid_epoch_resumes_exactly(tmp_path):
    class Stop(Callback):
        def on_batch_end(self, state):
            if state.step == 3:
                state.request_stop("stop")

    whole, kept = run(EMA(0.9), Checkpoint(tmp_path / "a")), Weights()
    run(EMA(0.9), Stop(), Checkpoint(tmp_path / "b"))
    resumed = run(EMA(0.9), kept, Checkpoint(tmp_path / "b"), resume=True)
    assert same(resumed.model.state_dict(), whole.model.state_dict())
    assert resumed.history == whole.history


def test_a_run_that_leaves_it_out_goes_on_with_the_trained_weights(tmp_path):
    run(EMA(0.9), Checkpoint(tmp_path), epochs=1)
    with pytest.raises(CheckpointError, match="got: callbacks: EMA then, none now\n"):
        run(Checkpoint(tmp_path), resume=True)
    resumed = run(Checkpoint(tmp_path), resume=True, override=("callbacks",))
    assert same(resumed.model.state_dict(), run().model.state_dict())


@pytest.mark.parametrize("decay", [1, -0.1, True, "0.9"])
def test_a_decay_out_of_range_is_refused(decay):
    with pytest.raises(ArgumentError, match=r"^decay cannot be used\n  got: "):
        EMA(decay)


def test_an_average_of_another_model_is_refused():
    callback = EMA(0.9)
    callback.load_state_dict({"updates": 3, "average": {"weight": torch.ones(2)}})
    state = type("State", (), {"step": 3, "model": network(), "averaged": None, "optimizers": []})()
    with pytest.raises(
        CheckpointError, match=r"^the averaged weights do not fit the model\n  got: 1 averages, 9 weights"
    ):
        callback.on_fit_start(state)


def test_an_error_leaves_the_trained_weights_in_the_model():
    class Fails(Callback):
        def on_batch_end(self, state):
            if state.step == 3:
                raise ValueError("here")

    model, seen = network(), Weights()
    with pytest.raises(ValueError, match="here"):
        run(EMA(0.9), seen, Fails(), model=model)
    assert same(model.state_dict(), seen.trained[-1])


@pytest.mark.filterwarnings("ignore:.*holds the state of a callback 'Checkpoint'")
def test_used_again_in_a_run_continued_from_one_without_it_it_begins_with_the_weights(tmp_path):
    run(Checkpoint(tmp_path), epochs=1)
    used, last = EMA(0.9), tmp_path / "last.pt"
    run(used, lr=0.1)
    meant = {"resume": last, "override": ("callbacks",)}
    again, fresh = run(used, **meant), run(EMA(0.9), **meant)
    assert same(again.model.state_dict(), fresh.model.state_dict())


def test_another_decay_is_refused_on_resume(tmp_path):
    run(EMA(0.9), Checkpoint(tmp_path), epochs=1)
    with pytest.raises(CheckpointError, match=r"got: EMA's decay: 0\.9 then, 0\.5 now\n"):
        run(EMA(0.5), Checkpoint(tmp_path), resume=True)


def test_another_decay_is_refused_of_a_file_that_keeps_it_in_the_average_only():
    with pytest.raises(CheckpointError, match=r"with another decay\n  got: decay=0\.9 then, 0\.5 now\n"):
        EMA(0.5).load_state_dict({"updates": 3, "average": {}, "decay": 0.9})


class Counting(nn.Linear):
    """Keeps something beside its weights that is no tensor."""

    calls = 0

    def forward(self, inputs):
        self.calls += self.training
        return super().forward(inputs)

    def get_extra_state(self):
        return {"calls": self.calls}

    def set_extra_state(self, state):
        self.calls = state["calls"]


@pytest.mark.parametrize("average", [True, False])
def test_what_a_module_keeps_beside_its_weights_is_saved_and_comes_back(tmp_path, average):
    def train(epochs, directory):
        torch.manual_seed(0)
        model = Counting(3, 2)
        batches = [(torch.ones(2, 3), torch.tensor([0, 1]))] * 3
        callbacks = [*([EMA(0.5)] if average else []), Checkpoint(directory, monitor=None)]
        cvkit.fit(
            model, batches, batches, epochs=epochs, resume=True, callbacks=callbacks, progress=False, preflight=False
        )
        return model

    whole = train(2, tmp_path / "a")
    train(1, tmp_path / "b")
    parts = train(2, tmp_path / "b")
    assert whole.calls == parts.calls == 6
    assert torch.equal(whole.weight, parts.weight)
    assert cvkit.load_checkpoint(tmp_path / "b" / "last.pt")["model"]["_extra_state"] == {"calls": 6}
