"""Files made to do harm, under a right checksum: nothing in them is ever run, and each is refused by name."""

import ast
import builtins
import hashlib
import io
import os
import pickle
import struct
import zipfile
from pathlib import Path

import pytest
import torch

import cvkit
from cvkit.callbacks import Checkpoint
from cvkit.errors import CvkitError
from cvkit.serialization import archive

SOURCES = sorted((Path(__file__).parents[2] / "src").rglob("*.py"))


class Calls:
    """What pickles as the call of a function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


class Sets(Calls):
    """What pickles as the call of a function when its state is set."""

    def __reduce__(self):
        return torch.nn.Identity, (), None, None, None, self.call[0]


def touch(marker):
    return f"open({str(marker)!r}, 'w').close()"


def by_name(module, name, argument, protocol=2):
    """A pickle that looks up ``module.name`` by its own words and calls it."""
    if protocol == 0:  # text opcodes
        return f"c{module}\n{name}\n(S{argument!r}\ntR.".encode()
    text = b"".join(b"\x8c" + bytes([len(t)]) + t.encode() for t in (module, name))
    return b"\x80\x04" + text + b"\x93X" + struct.pack("<I", len(argument)) + argument.encode() + b"\x85R."


OBJECTS = {
    "os.system": lambda m: {"model": Calls(os.system, f"touch {m}")},
    "eval": lambda m: {"model": Calls(eval, touch(m))},
    "exec": lambda m: {"model": Calls(exec, touch(m))},
    "open": lambda m: {"model": Calls(open, str(m), "w")},
    "nested deep": lambda m: {"training": {"callbacks": [{"a": ({"b": [Calls(exec, touch(m))]},)}]}},
    "in the metadata": lambda m: {"model": {}, "format": Calls(exec, touch(m)), "description": {}},
    "as a key": lambda m: {"model": {Calls(exec, touch(m)): torch.zeros(2)}},
    "getattr chain": lambda m: {"model": Calls(getattr, Calls(__import__, "os"), "system")},
    "builtins by another way": lambda m: {"model": Calls(builtins.compile, touch(m), "x", "exec")},
    "when its state is set": lambda m: {"model": Sets(exec)},
    "torch.load inside": lambda m: {"model": Calls(torch.load, str(m))},
    "a module": lambda m: torch.nn.Linear(2, 2),
    "a module in a dict": lambda m: {"model": torch.nn.Linear(2, 2)},
    "beside real weights": lambda m: {"model": torch.nn.Linear(2, 2).state_dict(), "x": Calls(exec, touch(m))},
}

STREAMS = {
    "os.system by text opcodes": lambda m: by_name("posix", "system", f"touch {m}", 0),
    "os.system by stacked names": lambda m: by_name("posix", "system", f"touch {m}"),
    "a name with dots": lambda m: by_name("torch", "serialization.os.system", f"touch {m}"),
    "torch's own runner of code": lambda m: by_name("torch._inductor.codecache", "os.system", f"touch {m}"),
    "numpy's loader": lambda m: by_name("numpy", "load", str(m)),
    "an extension code": lambda m: b"\x80\x02\x82\x07)R.",
    "a count of four thousand millions": lambda m: b"\x80\x02X\xff\xff\xff\xff.",
    "a long of half a gigabyte": lambda m: b"\x80\x02\x8b\xff\xff\xff\x1f.",
    "bytes beyond the end": lambda m: b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x7f.",
    "a memo far away": lambda m: b"\x80\x02r\xff\xff\xff\x7f.",
    "nothing": lambda m: b"",
}


def zipped(stream, more=(), name="archive/data.pkl", compression=zipfile.ZIP_STORED):
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", compression) as file:
        file.writestr(name, stream)
        file.writestr("archive/version", "3\n")
        file.writestr("archive/byteorder", "little")
        for extra, content in more:
            file.writestr(extra, content)
    return made.getvalue()


def saved(content):
    made = io.BytesIO()
    torch.save(content, made)
    return made.getvalue()


def bomb():
    return zipped(b"\x80\x02}.", [("archive/data/0", b"\0" * 50_000_000)], compression=zipfile.ZIP_DEFLATED)


def huge_storage():
    """A tensor that says it has 2^40 numbers; its record has four bytes."""
    stream = saved({"model": torch.zeros(1)})
    with zipfile.ZipFile(io.BytesIO(stream)) as file:
        pickled = next(file.read(name) for name in file.namelist() if name.endswith("data.pkl"))
    return zipped(
        pickled.replace(b"K\x01tq", b"\x8a\x06" + (1 << 40).to_bytes(6, "little") + b"tq"),
        [("archive/data/0", b"\0" * 4)],
    )


ARCHIVES = {
    "a bomb": lambda m: bomb(),
    "a tensor larger than its bytes": lambda m: huge_storage(),
    "two pickles of one name": lambda m: zipped(saved({}), [("archive/data.pkl", pickle.dumps(Calls(exec, touch(m))))]),
    "a path upwards": lambda m: zipped(b"\x80\x02}.", [("archive/../../x", b"x")]),
    "a TorchScript program": lambda m: zipped(
        b"\x80\x02}.", [("archive/constants.pkl", pickle.dumps(Calls(exec, touch(m))))]
    ),
    "no archive, a pickle": lambda m: pickle.dumps(Calls(exec, touch(m))),
    "an empty archive": lambda m: b"PK\x05\x06" + b"\0" * 18,
}


def sealed(data):
    """Puts a right digest under the bytes of an archive, as somebody who knows the format would."""
    body = data[:-2]
    digest = hashlib.sha256(body + b"\0\0").hexdigest().encode()
    return body + archive.COMMENT.to_bytes(2, "little") + archive.MAGIC + digest


def corpus():
    for name, make in OBJECTS.items():
        yield pytest.param(lambda m, make=make: saved(make(m)), id=name)
    for name, make in STREAMS.items():
        yield pytest.param(lambda m, make=make: zipped(make(m)), id=name)
    for name, make in ARCHIVES.items():
        yield pytest.param(make, id=name)


def readers(path):
    """Everything in cvkit that reads a file of weights, each with what it is given."""
    model = torch.nn.Linear(2, 2)
    batches = [(torch.zeros(2, 2), torch.tensor([0, 1]))]

    def resumed(resume):
        keep = [Checkpoint(path.parent, monitor=None)]
        return cvkit.fit(model, batches, epochs=1, resume=resume, callbacks=keep, progress=False, preflight=False)

    return {
        "load_checkpoint": lambda: cvkit.load_checkpoint(path),
        "load": lambda: cvkit.load(path),
        "load_weights": lambda: cvkit.load_weights(model, path),
        "create": lambda: cvkit.models.create("linear", num_classes=2, in_features=2, pretrained=path),
        "resume": lambda: resumed(True),
        "resume=path": lambda: resumed(path),
    }


@pytest.mark.parametrize("make", list(corpus()))
@pytest.mark.parametrize("with_seal", [True, False], ids=["sealed", "plain"])
def test_no_reader_runs_anything_and_each_refuses_by_name(make, with_seal, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")  # of torch's; it must not weaken anything
    (tmp_path / "run").mkdir()
    marker, path = tmp_path / "marker", tmp_path / "run" / "last.pt"
    data = make(marker)
    path.write_bytes(sealed(data) if with_seal else data)
    before = sorted(tmp_path.rglob("*"))
    for reader, read in readers(path).items():
        with pytest.raises(CvkitError) as caught:
            read()
        assert str(path) in str(caught.value), reader
        assert "can still be loaded" not in str(caught.value)
    assert sorted(tmp_path.rglob("*")) == before, "something was written"


@pytest.mark.parametrize(
    "name", ["os.system", "eval", "exec", "open", "nested deep", "in the metadata", "beside real weights"]
)
def test_these_files_do_harm_to_who_unpickles_them(name, tmp_path):
    torch.load(io.BytesIO(saved(OBJECTS[name](tmp_path / "marker"))), weights_only=False)
    assert (tmp_path / "marker").exists()


@pytest.mark.parametrize("name", ["os.system by text opcodes", "os.system by stacked names"])
def test_so_do_these_streams(name, tmp_path):
    pickle.loads(STREAMS[name](tmp_path / "marker"))
    assert (tmp_path / "marker").exists()


def test_what_another_program_has_allowed_is_not_allowed_here(tmp_path):
    path = tmp_path / "last.pt"
    path.write_bytes(sealed(saved({"model": Calls(exec, touch(tmp_path / "marker"))})))
    with torch.serialization.safe_globals([exec, Calls]), pytest.raises(CvkitError, match="more than tensors"):
        cvkit.load_checkpoint(path)
    assert not (tmp_path / "marker").exists()


def test_every_call_that_reads_a_file_of_torchs_says_weights_only():
    found = []
    for source in SOURCES:
        for node in ast.walk(ast.parse(source.read_text("utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("torch.load", "load_state_dict_from_url"):
                said = {word.arg: ast.unparse(word.value) for word in node.keywords}
                found.append(source)
                assert said.get("weights_only") == "True", f"{source}:{node.lineno}"
    assert found
    for source in SOURCES:
        tree = ast.parse(source.read_text("utf-8"))
        imported = {one.name for node in ast.walk(tree) if isinstance(node, ast.Import) for one in node.names}
        assert not imported & {"dill", "cloudpickle", "joblib", "shelve"}, source
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                assert ast.unparse(node.func) not in ("pickle.loads", "pickle.load", "pickle.Unpickler"), source
