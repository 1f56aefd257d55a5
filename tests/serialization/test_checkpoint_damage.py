"""A checkpoint of a real run, damaged in every way that storage and copying damage files: none loads silently wrong."""

import random
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import cvkit
from cvkit.callbacks import Checkpoint
from cvkit.errors import CheckpointError, CvkitWarning
from cvkit.training import load_checkpoint

FLIPS, CUTS = 350, 150


def _model() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(12, 400), torch.nn.ReLU(), torch.nn.Linear(400, 5))


def _fit(directory: Path, epochs: int, **more) -> cvkit.FitResult:
    model = _model()
    data = [(torch.randn(4, 12), torch.randint(5, (4,))) for _ in range(3)]
    keeper = Checkpoint(directory, monitor=None, keep_last=2)
    return cvkit.fit(model, data, epochs=epochs, callbacks=[keeper], progress=False, device="cpu", seed=0, **more)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """The directory of a run of three epochs: the newest state, and the one before it."""
    directory = tmp_path_factory.mktemp("run")
    _fit(directory, 3)
    return directory


@pytest.fixture(scope="module")
def sound(run) -> bytes:
    data = (run / "last.pt").read_bytes()
    assert 50_000 < len(data) < 300_000
    return data


@pytest.fixture(scope="module")
def earlier(run) -> bytes:
    data = (run / "step-00000006.pt").read_bytes()
    assert data != (run / "last.pt").read_bytes()
    return data


def _flat(content: object) -> list[object]:
    """Everything that a content holds, in order, each tensor as its type and bytes."""
    if isinstance(content, torch.Tensor):
        raw = content.contiguous().reshape(-1).view(torch.uint8)
        return [str(content.dtype), tuple(content.shape), raw.numpy().tobytes()]
    if isinstance(content, dict):
        return ["{", *(x for key, value in content.items() for x in (repr(key), *_flat(value))), "}"]
    if isinstance(content, list | tuple):
        return [type(content).__name__, *(x for value in content for x in _flat(value)), "]"]
    return [type(content).__name__, repr(content)]


def _captions(path: Path, data: bytes, sound: bytes, what: object) -> str:
    """Loads damaged bytes; returns the first line of the refusal."""
    assert data != sound, what
    path.write_bytes(data)
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(path)
    said = str(caught.value)
    assert said.count("\n") == 3, what  # what failed, got, expected, fix
    assert "\n  fix: use another checkpoint of the run" in said, what
    return said.partition("\n")[0]


def _refusals(path: Path) -> tuple[str, str]:
    return f"the checkpoint {path} is damaged", f"{path} is no whole checkpoint of cvkit's"


def test_the_run_loads_whole_and_twice_the_same(run, sound, tmp_path):
    content = _flat(load_checkpoint(run / "last.pt"))
    (tmp_path / "copy.pt").write_bytes(sound)
    assert _flat(load_checkpoint(tmp_path / "copy.pt")) == content
    assert _flat(load_checkpoint(run / "step-00000006.pt")) != content


def test_random_bit_flips_never_load(tmp_path, sound):
    chance, path = random.Random(4), tmp_path / "flipped.pt"
    for case in range(FLIPS):
        changed = bytearray(sound)
        for _ in range(chance.choice([1, 1, 1, 2, 3, 16])):
            changed[chance.randrange(len(sound))] ^= 1 << chance.randrange(8)
        if bytes(changed) != sound:
            assert _captions(path, bytes(changed), sound, case) in _refusals(path)


def test_every_single_bit_of_the_seal_and_of_the_first_header_counts(tmp_path, sound):
    path = tmp_path / "flipped.pt"
    places = [*range(64), *range(len(sound) - 110, len(sound))]
    for place in places:
        for bit in (0, 5) if place > 64 else (place % 8,):
            changed = bytearray(sound)
            changed[place] ^= 1 << bit
            assert _captions(path, bytes(changed), sound, (place, bit)) in _refusals(path)


def test_random_cuts_never_load(tmp_path, sound):
    chance, path = random.Random(5), tmp_path / "cut.pt"
    for case in range(CUTS):
        start, end = sorted(chance.randrange(len(sound) + 1) for _ in range(2))
        kind = chance.choice(["end", "start", "middle"])
        cut = {"end": sound[:end], "start": sound[start:], "middle": sound[:start] + sound[end:]}[kind]
        if cut != sound:
            assert _captions(path, cut, sound, (case, kind, start, end)) in _refusals(path)


@pytest.mark.parametrize("keep", [0, 1, 21, 22, 76, 77, 78, 79, 98, 99, 100])
def test_a_file_cut_to_its_last_bytes_or_its_first_is_refused(tmp_path, sound, keep):
    path = tmp_path / "cut.pt"
    assert _captions(path, sound[:keep], sound, keep) in _refusals(path)
    assert _captions(path, sound[len(sound) - keep :], sound, keep) in _refusals(path)
    assert _captions(path, sound[: len(sound) - 1 - keep], sound, keep) in _refusals(path)


DAMAGES: dict[str, Callable[[bytes, bytes, random.Random], bytes]] = {
    "bytes appended": lambda a, b, chance: a + chance.randbytes(chance.randint(1, 5000)),
    "zeros appended": lambda a, b, chance: a + bytes(chance.randint(1, 5000)),
    "bytes before it": lambda a, b, chance: chance.randbytes(chance.randint(1, 5000)) + a,
    "bytes put in": lambda a, b, chance: a[: (at := chance.randrange(len(a)))] + chance.randbytes(3) + a[at:],
    "written twice over": lambda a, b, chance: a + a,
    "another one appended": lambda a, b, chance: a + b,
    "halves of two": lambda a, b, chance: a[: len(a) // 2] + b[len(b) // 2 :],
    "the body of another": lambda a, b, chance: b[:-79] + a[-79:],
    "the seal of another": lambda a, b, chance: a[:-79] + b[-79:],
    "any part of another": lambda a, b, chance: a[: (at := chance.randrange(1, len(a) - 80))] + b[at:],
    "a block of another": lambda a, b, chance: (
        a[: (at := 4096 * chance.randrange(1, len(a) // 4096))] + b[at : at + 4096] + a[at + 4096 :]
    ),
    "a sector of zeros": lambda a, b, chance: (
        a[: (at := 512 * chance.randrange(len(a) // 512))] + bytes(512) + a[at + 512 :]
    ),
    "a page never written": lambda a, b, chance: (
        a[: (at := 4096 * chance.randrange(len(a) // 4096))] + bytes(len(a) - at)
    ),
    "bytes of one value": lambda a, b, chance: bytes([chance.randrange(256)]) * len(a),
    "sent as text": lambda a, b, chance: a.replace(b"\n", b"\r\n"),
    "sent as UTF-8": lambda a, b, chance: a.decode("latin-1").encode(),
    "seven bits": lambda a, b, chance: bytes(byte & 127 for byte in a),
}


def _swapped(data: bytes, chance: random.Random) -> bytes:
    size = chance.choice([1, 16, 512, 4096])
    first, second = sorted(chance.sample(range(len(data) // size), 2))
    one, two = data[first * size : (first + 1) * size], data[second * size : (second + 1) * size]
    return b"".join(
        [data[: first * size], two, data[(first + 1) * size : second * size], one, data[(second + 1) * size :]]
    )


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_copying_and_disks_do_to_files_is_noticed(tmp_path, sound, earlier, damage):
    chance, path = random.Random(6), tmp_path / "damaged.pt"
    for case in range(5):
        damaged = DAMAGES[damage](sound, earlier, chance)
        if damaged not in (
            sound,
            earlier,
        ):  # a block of zeros, or one that both have, may be put where there was such a one
            assert _captions(path, damaged, sound, (damage, case)) in _refusals(path)


def test_swapped_blocks_are_noticed(tmp_path, sound):
    chance, path = random.Random(7), tmp_path / "swapped.pt"
    for case in range(40):
        swapped = _swapped(sound, chance)
        if swapped != sound:
            assert _captions(path, swapped, sound, case) in _refusals(path)


def test_a_damaged_file_is_refused_by_its_name_wherever_it_is_read(tmp_path, sound):
    changed = bytearray(sound)
    changed[len(sound) // 2] ^= 1
    path = tmp_path / "moved.pt"
    path.write_bytes(changed)
    digest = sound[-64:].decode()
    said = (
        f"the checkpoint {path} is damaged\n"
        "  got: bytes that do not fit its checksum\n"
        f"  expected: SHA-256 {digest}\n"
        "  fix: use another checkpoint of the run, or copy the file again from where it came"
    )
    for read in (load_checkpoint, cvkit.load, lambda path: _fit(tmp_path / "new", 4, resume=path)):
        with pytest.raises(CheckpointError) as caught:
            read(path)
        assert str(caught.value) == said


def test_a_run_goes_on_from_the_newest_sound_file_and_names_both(tmp_path, sound, earlier):
    for name, data in (("last.pt", sound[:-1000]), ("step-00000009.pt", sound[:-1000]), ("step-00000006.pt", earlier)):
        (tmp_path / name).write_bytes(data)
    with pytest.warns(CvkitWarning) as caught:
        result = _fit(tmp_path, 4, resume=True)
    told = [str(one.message) for one in caught if issubclass(one.category, CvkitWarning)]
    source = tmp_path / "step-00000006.pt"
    for name in ("last.pt", "step-00000009.pt"):
        assert any(str(tmp_path / name) in one and str(source) in one for one in told), told
    assert len(result.history) == 4  # two from the file, two more
