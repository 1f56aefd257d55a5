"""A fake CUDA device: tensors that say "cuda:0" and hold their values on the host, under rules as strict as a GPU's.

A host tensor that meets a device tensor is an error. Whatever would make the host wait is noted with its line, and so is every
access that is not ordered after the one before: each queue, and the host, has a vector clock.
"""

import contextlib
import os
import sys
import weakref
from types import SimpleNamespace

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from cvkit import streams
from cvkit.serialization import checkpoint
from cvkit.transforms import batch

CUDA = torch.device("cuda", 0)
CPU = torch.device("cpu")
HERE = os.path.abspath(__file__)
TORCH = os.path.dirname(torch.__file__)
STEP = {
    "forward",
    "forward_backward",
    "finish_gradients",
    "update",
    "feed",
    "on_batch_start",
    "on_gradients_ready",
    "on_batch_end",
    "on_validation_batch_end",
}
"""Functions whose frames say that a step is under way."""

WAITS = {"_local_scalar_dense", "nonzero", "masked_select", "_unique2", "unique_dim", "equal", "is_nonzero"}
"""Operators that must know values, so that the host waits for them."""


def is_cuda(device):
    return device is not None and not isinstance(device, int) and torch.device(device).type == "cuda"


def where():
    """The innermost line that is neither torch's nor this file's, and whether it runs in a step."""
    frame, line, in_step, settling = sys._getframe(1), None, False, False
    while frame is not None:
        path = frame.f_code.co_filename
        if line is None and not path.startswith(TORCH) and os.path.abspath(path) != HERE:
            line = f"{os.path.basename(path)}:{frame.f_lineno} {frame.f_code.co_name}"
        in_step = in_step or frame.f_code.co_name in STEP
        settling = settling or frame.f_code.co_name == "_settle"  # what is kept moves to the device once a run
        frame = frame.f_back
    return line, in_step and not settling


class Memory:
    """What a tensor and its views share; when it goes, the memory may be used again by the queue that has made it."""

    def __init__(self, device):
        self.device, self.queue = device, device.queue
        self.written, self.read, self.kept = None, {}, set()

    def __del__(self):
        self.device.freed(self)


class OnDevice(torch.Tensor):
    """A tensor of the fake device."""

    @staticmethod
    def __new__(cls, held, memory):
        made = torch.Tensor._make_wrapper_subclass(
            cls, held.shape, strides=held.stride(), storage_offset=held.storage_offset(), dtype=held.dtype, device=CPU
        )
        made.held, made.memory = held, memory
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl
    device = property(lambda self: CUDA)
    is_cuda = property(lambda self: True)

    def __repr__(self, **_):
        return f"OnDevice({tuple(self.shape)})"

    def data_ptr(self):
        return self.held.data_ptr()

    def __deepcopy__(self, memo):
        return memo.setdefault(
            id(self), FakeCuda.now.put(self.held.detach().clone()).requires_grad_(self.requires_grad)
        )

    def record_stream(self, stream):
        self.memory.kept.add(stream.name)

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return FakeCuda.now.run(func, args, kwargs or {})


class Event:
    """A moment in a queue; the first question whether it has passed is answered with no."""

    def __init__(self, enable_timing=False, **_):
        self.clock, self.asked = None, 0

    def record(self, stream=None):
        device = FakeCuda.now
        queue = stream.name if stream is not None else device.queue
        device.log.append(("record", queue))
        self.clock = dict(device.clocks[queue])

    def query(self):
        self.asked += 1
        if self.asked > 1:
            self.synchronize()
        return self.asked > 1

    def synchronize(self):
        FakeCuda.now.join("host", self.clock)

    def elapsed_time(self, later):
        return 1.0


class Stream:
    def __init__(self, device=None, name=None):
        self.name = name or f"side{len(FakeCuda.now.clocks)}"
        FakeCuda.now.clocks.setdefault(self.name, {})

    def wait_event(self, event):
        FakeCuda.now.log.append(("wait", self.name))
        FakeCuda.now.join(self.name, event.clock)

    def record_event(self):
        event = Event()
        event.record(self)
        return event


class FakeCuda(TorchFunctionMode):
    """The device, as long as it is entered."""

    now = None

    def __init__(self):
        super().__init__()
        self.clocks, self.queue = {"host": {}, "main": {}}, "main"
        self.log, self.syncs, self.races, self.host = [], [], [], {}
        self.rng_restored = 0

    # --- clocks

    def join(self, queue, clock):
        mine = self.clocks[queue]
        for name, time in (clock or {}).items():
            mine[name] = max(mine.get(name, 0), time)

    def enqueue(self, what, reads, writes, host=()):
        """Queues work behind everything that its queue and the host know of."""
        self.join(self.queue, self.clocks["host"])
        self.access(self.queue, what, [*reads, *(m for m, w in host if not w)], [*writes, *(m for m, w in host if w)])

    def access(self, queue, what, reads, writes):
        clock = self.clocks[queue]
        clock[queue] = clock.get(queue, 0) + 1
        known = lambda at: at is None or clock.get(at[0], 0) >= at[1]  # noqa: E731
        for memory in {*reads, *writes}:
            if not known(memory.written):
                self.races.append(f"{what} in {queue} does not wait for the write in {memory.written[0]}: {where()[0]}")
            if memory in writes and not all(known((name, time)) for name, time in memory.read.items()):
                self.races.append(f"{what} in {queue} overwrites what {', '.join(memory.read)} reads: {where()[0]}")
        for memory in reads:
            memory.read[queue] = clock[queue]
        for memory in writes:
            memory.written, memory.read = (queue, clock[queue]), {}
        self.log.append((what, queue))

    def freed(self, memory):
        clock = self.clocks[memory.queue]
        used = {**memory.read, **({memory.written[0]: memory.written[1]} if memory.written else {})}
        late = [q for q, t in used.items() if q not in memory.kept and q != memory.queue and clock.get(q, 0) < t]
        if late:
            self.races.append(f"memory of {memory.queue} is free while {', '.join(late)} may still use it")

    def sync(self, what):
        line, in_step = where()
        self.syncs.append(SimpleNamespace(what=what, line=line, in_step=in_step))
        self.join("host", self.clocks[self.queue])

    def in_steps(self):
        return [f"{one.what} at {one.line}" for one in self.syncs if one.in_step]

    def check(self):
        assert not self.races, self.races
        assert not self.in_steps(), self.in_steps()

    # --- tensors

    def put(self, held):
        made = OnDevice(held, Memory(self))
        self.enqueue("make", [], [made.memory])
        return made

    def pinned(self, tensor):
        """Says that a host tensor is pinned; copies from and to it are not over when the call returns."""
        memory = Memory(self)
        memory.queue = "host"
        memory.kept = set(self.clocks) | {f"side{n}" for n in range(9)}  # torch frees pinned memory after its copies
        self.host[tensor.untyped_storage()._cdata] = (memory, weakref.ref(tensor))
        tensor._fake_pinned = True
        return tensor

    def host_memory(self, tensor):
        found = self.host.get(tensor.untyped_storage()._cdata) if type(tensor) is torch.Tensor else None
        return found[0] if found is not None and found[1]() is not None else None

    def send(self, tensor, non_blocking, dtype=None):
        if type(tensor) is not OnDevice and not non_blocking:
            self.sync("copy to the device")
        held = tensor.detach().clone() if dtype is None else tensor.detach().to(dtype, copy=True)
        made = OnDevice(held, Memory(self))
        source = self.host_memory(tensor)
        self.enqueue("send", [source] if source and non_blocking else [], [made.memory])
        return made

    def run(self, func, args, kwargs):
        """An operator: its tensors must all be here, scalars of the host aside."""
        name = func._schema.name.split("::")[1]
        flat = [one for one in tree_leaves((args, kwargs)) if isinstance(one, torch.Tensor)]
        if name == "copy_" and len(flat) == 2:
            return self.copy(*flat, bool(kwargs.get("non_blocking") or (len(args) > 2 and args[2])))
        hosts = [one for one in flat if not isinstance(one, OnDevice) and one.ndim]
        by_index = name in ("index", "index_put", "index_put_", "_index_put_impl_")
        if hosts and by_index and all(one.dtype in (torch.int64, torch.bool) for one in hosts):
            self.sync(f"{name} by an index on the host")
        elif hosts:
            raise RuntimeError(
                f"Expected all tensors to be on the same device, but found at least two devices, cuda:0 and cpu! ({name} at "
                f"{where()[0]})"
            )
        chosen = [one for one in tree_leaves(args[1:2]) if isinstance(one, torch.Tensor)] if by_index else []
        if name in WAITS or any(one.dtype in (torch.bool, torch.uint8) for one in chosen):
            self.sync(name)
        bare = lambda one: one.held if isinstance(one, OnDevice) else one  # noqa: E731
        made = func(*tree_map(bare, args), **tree_map(bare, {k: v for k, v in kwargs.items() if k != "device"}))
        return self.wrapped(func, name, flat, args, made)

    def wrapped(self, func, name, flat, args, made):
        mine = [one for one in flat if isinstance(one, OnDevice)]
        stores = {one.held.untyped_storage()._cdata: one for one in mine}
        mutated = [
            leaf.memory
            for arg, value in zip(func._schema.arguments, args)
            if arg.alias_info is not None and arg.alias_info.is_write
            for leaf in tree_leaves(value)
            if isinstance(leaf, OnDevice)
        ]
        fresh = []

        def wrap(one):
            if not isinstance(one, torch.Tensor):
                return one
            same = next((other for other in mine if other.held is one), None)
            if same is not None:
                return same
            base = stores.get(one.untyped_storage()._cdata)
            wrapper = OnDevice(one, base.memory if base is not None else Memory(self))
            if base is None:
                fresh.append(wrapper.memory)
            return wrapper

        result = tree_map(wrap, made)
        views = not fresh and not mutated and any(isinstance(one, OnDevice) for one in tree_leaves(result))
        if not views:
            self.enqueue(name, [one.memory for one in mine if one.memory not in mutated], [*mutated, *fresh])
        return result

    def copy(self, into, source, non_blocking):
        """A copy between host and device, or on the device."""
        if isinstance(into, OnDevice):
            into.held.copy_(source.held if isinstance(source, OnDevice) else source)
            if not isinstance(source, OnDevice) and source.ndim and not non_blocking:
                self.sync("copy to the device")
            memory = source.memory if isinstance(source, OnDevice) else self.host_memory(source)
            self.enqueue("copy", [memory] if memory else [], [into.memory])
            return into
        into.copy_(source.held)
        memory = self.host_memory(into)
        self.enqueue("fetch", [source.memory], [memory] if memory is not None else [])
        if not (non_blocking and memory is not None):
            self.sync("copy to the host")
        return into

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        name = getattr(func, "__name__", "")
        first = args[0] if args and isinstance(args[0], torch.Tensor) else None
        if first is not None and name in ("tolist", "numpy", "item", "__bool__", "__float__", "__int__", "__format__"):
            return self.looked_at(func, name, first, args, kwargs)
        if name == "one_hot" and isinstance(first, OnDevice):  # torch asks for the device where this cannot answer
            self.enqueue("one_hot", [first.memory], [])
            return self.put(torch.nn.functional.one_hot(first.held, *args[1:], **kwargs))
        if name == "pin_memory":
            return self.pinned(first.clone())
        if name == "is_pinned":
            return getattr(first, "_fake_pinned", False)
        if name in ("to", "cpu", "cuda", "type"):
            return self.moved(func, name, first, args, kwargs)
        pinned = kwargs.pop("pin_memory", False)
        device = kwargs.get("device")
        if device is not None and is_cuda(device):
            kwargs["device"] = CPU
            source = args[0] if args else None
            if name in ("tensor", "as_tensor", "new_tensor"):
                self.sync(f"{name}(…, device)")
            bare = [one.held if isinstance(one, OnDevice) else one for one in args]
            del source
            made = func(*bare, **kwargs)
            wants = kwargs.get("requires_grad", False)
            return self.put(made.detach()).requires_grad_(wants)
        if device is not None and isinstance(first, OnDevice) and name.endswith("_like"):
            made = func(first.held, *args[1:], **kwargs)
        else:
            made = func(*args, **kwargs)
        return self.pinned(made) if pinned else made

    def looked_at(self, func, name, first, args, kwargs):
        if isinstance(first, OnDevice):
            self.sync(name)
            return func(first.detach().held, *args[1:], **kwargs)
        memory = self.host_memory(first)
        if memory is not None:
            self.access("host", name, [memory], [])
        return func(*args, **kwargs)

    def moved(self, func, name, first, args, kwargs):
        rest = [one for one in args[1:] if isinstance(one, str | torch.device)]
        device = CUDA if name == "cuda" else CPU if name == "cpu" else kwargs.get("device", rest[0] if rest else None)
        others = [one for one in args[1:] if isinstance(one, torch.dtype)]
        dtype = kwargs.get("dtype", others[0] if others else None)
        like = next((one for one in args[1:] if isinstance(one, torch.Tensor)), None)
        if like is not None:
            device, dtype = like.device, like.dtype
        if device is None or name == "type" or is_cuda(device) == isinstance(first, OnDevice):
            plain = [one for one in args[1:] if not (isinstance(one, str | torch.device) and is_cuda(one))]
            kwargs = {k: v for k, v in kwargs.items() if k != "device"}
            return func(first, *plain, **kwargs) if plain or kwargs else first
        blocking = not (kwargs.get("non_blocking") or (len(args) > 3 and args[3]))
        if is_cuda(device):
            made = self.send(first, not blocking, dtype)
            return made.requires_grad_(first.requires_grad and not isinstance(first, torch.nn.Parameter))
        self.enqueue("fetch", [first.memory], [])
        self.sync(name)  # without pinned memory it always waits
        return first.detach().held.clone().to(dtype or first.dtype)


class Waits(TorchDispatchMode):
    """Counts what would wait, on the plain CPU path."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func._schema.name.split("::")[1]
        masks = name == "index" and any(one is not None and one.dtype == torch.bool for one in args[1])
        line, in_step = where()
        host = line is not None and line.startswith(("sample_cache.py", "loader.py", "batch.py", "order.py"))
        if (name in WAITS or masks) and in_step and not host:  # which samples are wanted the host knows anyway
            self.found.append(f"{name} at {line}")
        return func(*args, **(kwargs or {}))


class Generator(torch.Generator):
    def __new__(cls, device="cpu"):
        return super().__new__(cls, "cpu")


@pytest.fixture
def cuda(monkeypatch):
    """A fake CUDA device, entered."""
    device = FakeCuda()
    FakeCuda.now = device
    main = Stream(name="main")

    @contextlib.contextmanager
    def within(stream):
        before, device.queue = device.queue, stream.name
        try:
            yield
        finally:
            device.queue = before

    autocast, group = torch.autocast, torch._C._group_tensors_by_device_and_dtype
    plain, write = checkpoint._plain_tensor, checkpoint._write

    def written(path, content):
        """torch.save copies to the host what it finds on a device."""
        return write(path, tree_map(lambda one: one.cpu() if isinstance(one, OnDevice) else one, content))

    monkeypatch.setattr(checkpoint, "_write", written)

    def grouped(tensors, with_indices=False):
        """Torch asks for the device in C++, which does not know of ours."""
        found = group(tensors, with_indices)
        mine = any(isinstance(one, OnDevice) for several in tensors for one in several)
        return {(CUDA if mine else device, dtype): value for (device, dtype), value in found.items()}

    monkeypatch.setattr(torch.optim.Optimizer, "_accelerator_graph_capture_health_check", lambda self: None)
    monkeypatch.setattr(torch._C, "_group_tensors_by_device_and_dtype", grouped)
    monkeypatch.setattr(
        checkpoint, "_plain_tensor", lambda one, name: one if isinstance(one, OnDevice) else plain(one, name)
    )
    batch._constants.cache_clear()
    states = [torch.zeros(16, dtype=torch.uint8)]

    def restored(state, index):
        device.rng_restored += 1

    replaced = {
        "is_available": lambda: True,
        "is_initialized": lambda: True,
        "device_count": lambda: 1,
        "get_device_capability": lambda _=None: (9, 0),
        "get_device_name": lambda _=None: "Fake",
        "mem_get_info": lambda _=None: (2**34, 2**35),
        "memory_allocated": lambda _=None: 0,
        "max_memory_allocated": lambda _=None: 0,
        "current_stream": lambda _=None: Stream(name=device.queue) if device.queue != "main" else main,
        "stream": within,
        "Stream": Stream,
        "Event": Event,
        "_lazy_init": lambda: None,
        "get_rng_state_all": lambda: states,
        "set_rng_state": restored,
        "manual_seed_all": lambda seed: None,
        "manual_seed": lambda seed: None,
    }
    for name, value in replaced.items():
        monkeypatch.setattr(torch.cuda, name, value)
    monkeypatch.setattr(torch, "autocast", lambda kind, dtype, **rest: autocast("cpu", dtype, **rest))
    monkeypatch.setattr(torch, "Generator", Generator)
    torch.__future__.set_swap_module_params_on_conversion(True)
    with device:
        yield device
    batch._constants.cache_clear()
    torch.__future__.set_swap_module_params_on_conversion(False)


@pytest.fixture
def waits():
    """A context that counts, on the CPU, what would make a GPU's host wait in a step."""
    return Waits


@pytest.fixture
def queues(cuda):
    """The seam, on the fake device."""
    return streams.of(CUDA)
