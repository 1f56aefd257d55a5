"""Which file a run continues from, what is done about damaged ones, and which run is refused."""

import re
import warnings

import pytest
import torch
from resumed_runs import ACCUMULATE, Keeps, assert_same, data, network, stop_at, train
from torch import nn

from cvkit.callbacks import Checkpoint, EarlyStopping
from cvkit.errors import ArgumentError, CheckpointError, CvkitWarning
from cvkit.training import fit, load_checkpoint


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nothing disturbed, with its directory."""
    directory = tmp_path_factory.mktemp("whole")
    _, everything = train(directory)
    return everything, directory


def test_a_new_run_in_a_directory_that_holds_one_is_refused(tmp_path):
    train(tmp_path)
    with pytest.raises(CheckpointError) as caught:
        train(tmp_path, resume=False)
    assert str(caught.value) == (
        f"{tmp_path} already holds a run\n"
        "  got: last.pt, best.pt\n"
        "  expected: a directory without checkpoints, for a new run\n"
        "  fix: pass resume=True to continue it, or choose another directory, or delete this one"
    )


def test_resume_without_a_checkpoint_callback_is_refused():
    with pytest.raises(ArgumentError) as caught:
        fit(network(), data(), epochs=1, resume=True, progress=False, callbacks=[EarlyStopping("train_loss")])
    assert str(caught.value) == (
        "resume=True does not know where to continue from\n"
        "  got: callbacks=['EarlyStopping']\n"
        "  expected: a Checkpoint callback among them\n"
        '  fix: add Checkpoint("runs/a"), or pass the file: resume="runs/a/last.pt"'
    )


def test_resume_in_an_empty_directory_is_a_new_run(tmp_path, whole):
    result, everything = train(tmp_path / "new")
    assert result.epochs == 2
    assert_same(everything, whole[0])


@pytest.mark.parametrize("kind", [str, lambda path: path])
def test_a_path_to_resume_from_continues_into_another_directory(tmp_path, whole, kind):
    train(tmp_path / "a", Keeps("on_batch_end", stop_at(3)))
    _, everything = train(tmp_path / "b", resume=kind(tmp_path / "a" / "last.pt"))
    assert_same(everything, whole[0])
    assert (tmp_path / "b" / "best.pt").exists()


def test_a_path_to_resume_from_needs_no_checkpoint_callback(tmp_path):
    train(tmp_path, epochs=1, schedule=None)
    with pytest.warns(CvkitWarning, match="holds the state of a callback 'Checkpoint' that this run does not have"):
        result = fit(
            network(),
            data(),
            data(shuffle=False, seed=4),
            epochs=2,
            accumulate=ACCUMULATE,
            optimizer=lambda parameters: torch.optim.AdamW(parameters, lr=0.05),
            callbacks=[EarlyStopping("val_loss", patience=5)],
            progress=False,
            resume=tmp_path / "last.pt",
            device="cpu",
        )
    assert result.history["epoch"] == [1, 2]


def test_a_directory_to_resume_from_is_answered_with_its_file(tmp_path):
    train(tmp_path)
    with pytest.raises(CheckpointError) as caught:
        train(tmp_path, resume=tmp_path)
    assert "got: a directory" in str(caught.value)
    assert f"pass resume={str(tmp_path / 'last.pt')!r}" in str(caught.value)


def test_what_is_said_of_other_data_names_no_hash(tmp_path):
    class Told(list):
        fingerprint = "1f2e"

    batches = [(torch.randn(4, 4), torch.randint(0, 3, (4,))) for _ in range(5)]
    one, other = Told(batches), Told(batches)
    other.fingerprint = "3d4c"
    train(tmp_path, train=one, epochs=1)
    with pytest.raises(
        CheckpointError, match="got: data: other files, labels or classes, or another shuffle, drop_last"
    ):
        train(tmp_path, train=other)
    one.batch_size, other.batch_size = 4, 5
    again = tmp_path / "again"
    train(again, train=one, epochs=1)
    with pytest.raises(CheckpointError, match="got: batch size: 4 then, 5 now\n"):
        train(again, train=other)


def test_a_path_to_resume_from_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(CheckpointError) as caught:
        train(tmp_path, resume=tmp_path / "lost.pt")
    assert str(caught.value) == (
        f"there is no checkpoint {tmp_path / 'lost.pt'}\n"
        "  got: no such file\n"
        "  expected: a file that a Checkpoint callback wrote\n"
        "  fix: check the path"
    )


def test_a_path_to_resume_from_does_not_open_a_directory_with_another_run(tmp_path):
    train(tmp_path / "a", epochs=1)
    train(tmp_path / "b", epochs=1)
    with pytest.raises(CheckpointError, match=f"^{tmp_path / 'b'} already holds a run"):
        train(tmp_path / "b", resume=tmp_path / "a" / "last.pt")


def damage(path):
    """Flips a bit in a new file of the same name, as a bad copy or disk does; hard links keep theirs."""
    changed = bytearray(path.read_bytes())
    changed[len(changed) // 2] ^= 4
    path.unlink()
    path.write_bytes(changed)


def test_a_damaged_newest_file_falls_back_to_the_newest_sound_one(tmp_path):
    kept = {"schedule": None, "checkpoint": Checkpoint(tmp_path / "b", keep_last=3)}
    _, undisturbed = train(tmp_path / "a", epochs=3, schedule=None)
    train(tmp_path / "b", epochs=2, **kept)
    for name in ("last.pt", "step-00000006.pt"):
        damage(tmp_path / "b" / name)
    with pytest.warns(CvkitWarning) as caught:
        result, everything = train(tmp_path / "b", epochs=3, **kept)
    sound = tmp_path / "b" / "step-00000003.pt"
    assert [str(one.message) for one in caught] == [
        f"the checkpoint {tmp_path / 'b' / name} is damaged: {tmp_path / 'b' / name} is left out, "
        f"the run continues from {sound}"
        for name in ("last.pt", "step-00000006.pt")
    ]
    assert result.epochs == 3
    assert_same(everything, undisturbed)


def test_a_damaged_newest_file_falls_back_to_the_best_when_there_is_no_other(tmp_path):
    train(tmp_path, epochs=2, schedule=None)
    damage(tmp_path / "last.pt")
    with pytest.warns(CvkitWarning, match=f"the run continues from {tmp_path / 'best.pt'}"):
        result, _ = train(tmp_path, epochs=3, schedule=None)
    assert result.epochs == 3


def test_damage_in_place_of_the_newest_leaves_an_older_state_to_fall_back_to(tmp_path):
    def checkpoint():
        return Checkpoint(tmp_path, keep_last=2)

    train(tmp_path, epochs=2, schedule=None, checkpoint=checkpoint())
    with open(tmp_path / "last.pt", "r+b") as file:  # in place: every hard link of it is damaged too
        file.seek(500)
        file.write(b"\0\1\2\3")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result, _ = train(tmp_path, epochs=2, schedule=None, checkpoint=checkpoint())
    assert any("is left out, the run continues from" in str(one.message) for one in caught)
    assert result.epochs == 2


def test_a_directory_with_nothing_sound_is_refused_by_name(tmp_path):
    train(tmp_path)
    for path in list(tmp_path.glob("*.pt")):
        damage(path)
    with pytest.raises(CheckpointError, match=f"no checkpoint of the run is sound: {tmp_path / 'last.pt'}, "):
        train(tmp_path)


def test_a_damaged_file_that_was_asked_for_by_name_is_refused(tmp_path):
    train(tmp_path)
    damage(tmp_path / "last.pt")
    with pytest.raises(CheckpointError, match=f"the checkpoint {tmp_path / 'last.pt'} is damaged"):
        train(tmp_path, resume=tmp_path / "last.pt")


@pytest.mark.parametrize(
    ("change", "said", "part"),
    [
        ({"train": 3}, "batches: 5 then, 6 now; batch size: 4 then, 3 now", "data"),
        ({"accumulate": 1}, "accumulate: 2 then, 1 now", "accumulate"),
    ],
)
def test_other_data_in_the_middle_of_an_epoch_are_refused(tmp_path, change, said, part):
    train(tmp_path, Keeps("on_batch_end", stop_at(2)))
    change = {key: data(value) if key == "train" else value for key, value in change.items()}
    with pytest.raises(CheckpointError) as caught:
        train(tmp_path, **change)
    assert str(caught.value) == (
        f"the run in {tmp_path / 'last.pt'} is another one than this\n"
        f"  got: {said}\n"
        "  expected: the same data, transform, model, loss, optimizer, schedule and whatever else decides the run; the number of "
        "epochs, of workers, the device and the cache may change\n"
        "  fix: undo the change; or, if it is meant, let the epoch end first by the script as it was, for "
        f"{part} cannot change 2 batches into one; then pass override=({part!r},); "
        "or start a new run in another directory from these weights: "
        f"cvkit.load_weights(model, {str(tmp_path / 'last.pt')!r})"
    )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"train": data(3)}, "batches: 5 then, 6 now; batch size: 4 then, 3 now"),
        ({"accumulate": 1}, "accumulate: 2 then, 1 now"),
        ({"clip_norm": 1.0}, "clip_norm: None then, 1.0 now"),
        ({"loss": nn.functional.multi_margin_loss}, "loss: cross_entropy then, multi_margin_loss now"),
        ({"optimizer": lambda p: torch.optim.AdamW(p, lr=0.5)}, "AdamW's lr: 0.05 then, 0.5 now"),
        ({"optimizer": "momentum"}, "optimizer: AdamW then, SGD now"),
        ({"schedule": None}, "schedule: CosineAnnealingLR then, none now"),
    ],
)
def test_another_run_is_refused_between_epochs_too_and_told_by_its_difference(tmp_path, change, said):
    train(tmp_path, epochs=1)
    with pytest.raises(
        CheckpointError, match=re.escape(f"the run in {tmp_path / 'last.pt'} is another one than this\n  got: {said}\n")
    ):
        train(tmp_path, epochs=1, **change)


def test_another_seed_is_refused(tmp_path):
    train(tmp_path, epochs=1, seed=5)
    with pytest.raises(CheckpointError, match=r"has another seed\n  got: seed=6\n  expected: seed=5, or none"):
        train(tmp_path, epochs=1, seed=6)
    assert train(tmp_path, epochs=1, seed=5)[0].epochs == 1


def test_another_model_is_refused_by_name(tmp_path):
    train(tmp_path, epochs=1)
    with pytest.raises(CheckpointError, match=f"the weights in {tmp_path / 'last.pt'} do not fit the model"):
        fit(nn.Linear(4, 3), data(), epochs=2, accumulate=2, resume=tmp_path / "last.pt", progress=False)


def test_another_optimizer_is_refused_by_name(tmp_path):
    train(tmp_path, epochs=1)

    def pair(parameters):
        return [torch.optim.SGD(parameters[:2]), torch.optim.SGD(parameters[2:])]

    with pytest.raises(CheckpointError, match="optimizer: AdamW then, SGD, SGD now"):
        train(tmp_path, optimizer=pair)


def test_a_newer_format_and_plain_weights_are_refused_by_name(tmp_path):
    from cvkit.training import save_checkpoint

    train(tmp_path / "a", epochs=1)
    content = load_checkpoint(tmp_path / "a" / "last.pt")
    newer = save_checkpoint(tmp_path / "newer.pt", content | {"format": 99})
    with pytest.raises(CheckpointError, match=f"^{newer} is of another format\n  got: format 99"):
        train(tmp_path / "b", resume=newer)
    weights = save_checkpoint(tmp_path / "weights.pt", {"model": content["model"]})
    with pytest.raises(CheckpointError, match=f"^{weights} holds no training state"):
        train(tmp_path / "b", resume=weights)
