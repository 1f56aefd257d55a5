"""Shards behind a URL: the same samples, whatever the network does, from a server that never sees the same request twice."""

import http.server
import os
import pickle
import threading
from pathlib import Path

import pytest

from cvkit.data import FolderDataset, Loader, ShardDataset, remote, write_shapes, write_shards
from cvkit.data.block_cache import BlockCache
from cvkit.errors import ArgumentError, DataError, ImageError, MissingDependencyError

fsspec = pytest.importorskip("fsspec")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(remote, "_WAIT", 0.001)
    write_shapes(tmp_path / "shapes", per_class=7, size=20)
    write_shards(FolderDataset(tmp_path / "shapes"), tmp_path / "shards", samples_per_shard=8)
    return tmp_path


@pytest.fixture
def memory(folder):
    system = fsspec.filesystem("memory")
    for path in (folder / "shards").iterdir():
        if path.suffix != ".index":
            system.pipe(f"/here/{path.name}", path.read_bytes())
    yield system
    system.rm("/here", recursive=True)


class Server:
    """A server on this machine that gives parts of files; every ``drops``-th request it answers by half and hangs up."""

    def __init__(self, root: Path) -> None:
        server = self
        self.drops, self.requests = 0, []

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *arguments):
                """Says nothing."""

            def do_HEAD(self):
                self.answer(body=False)

            def do_GET(self):
                self.answer(body=True)

            def answer(self, *, body):
                path = root / self.path.lstrip("/")
                server.requests.append(f"{self.command} {self.path} {self.headers.get('Range', '')}".strip())
                if not path.is_file():
                    self.send_response(404)
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                data = path.read_bytes()
                first, last = 0, len(data) - 1
                span = self.headers.get("Range")
                if span:
                    begin, _, end = span.removeprefix("bytes=").partition("-")
                    first, last = int(begin), min(int(end) if end else last, last)
                self.send_response(206 if span else 200)
                self.send_header("Accept-Ranges", "bytes")
                self.send_header("Content-Length", str(last - first + 1))
                if span:
                    self.send_header("Content-Range", f"bytes {first}-{last}/{len(data)}")
                self.send_header("ETag", f'"{len(data)}-{path.stat().st_mtime_ns}"')
                self.end_headers()
                if not body:
                    return
                part = data[first : last + 1]
                if server.drops and len(server.requests) % server.drops == 0:
                    self.wfile.write(part[: len(part) // 2])
                    self.wfile.flush()
                    self.close_connection = True
                    self.connection.close()
                    return
                self.wfile.write(part)

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def server(folder):
    pytest.importorskip("aiohttp")
    server = Server(folder / "shards")
    yield server
    server.close()


def samples(data):
    return [(image.tobytes(), target) for image, target in data]


def test_what_is_read_through_fsspec_is_what_lies_there(folder, memory):
    here = ShardDataset(folder / "shards/*.tar")
    there = ShardDataset("memory://here/*.tar")
    assert [shard.rpartition("/")[2] for shard in there.shards] == [f"shard-00000{number}.tar" for number in range(3)]
    assert (there.classes, there.targets, there.fingerprint) == (here.classes, here.targets.tolist(), here.fingerprint)
    assert samples(there) == samples(here)
    assert there.verify().count == 21
    other = pickle.loads(pickle.dumps(there))
    assert samples(other) == samples(here)
    batches = [targets.tolist() for _, targets in Loader(there, 4, shuffle="blocks", workers=0)]
    assert batches == [targets.tolist() for _, targets in Loader(here, 4, shuffle="blocks", workers=0)]


def test_workers_read_through_fsspec(folder, memory):
    there = ShardDataset("memory://here/shard-{000000..000002}.tar")
    loader = Loader(there, 4, workers=2, cache=None, start_method="fork")
    assert [one for _, targets in loader for one in targets.tolist()] == there.targets.tolist()


def test_what_fails_is_asked_for_again_and_then_named(folder, memory, monkeypatch):
    data, fails = ShardDataset("memory://here/*.tar"), []
    real = type(memory).cat_file

    def cat_file(self, path, start=None, end=None, **options):
        fails.append(path)
        if len(fails) <= least:
            raise ConnectionResetError("gone")
        return real(self, path, start, end)[: -5 if len(fails) == least + 1 and cut else None]

    monkeypatch.setattr(type(memory), "cat_file", cat_file)
    data.storage.cache = BlockCache(folder / "other", 10**9)
    least, cut = 3, True  # the answer after three that fail is too short
    assert data[0][1] == data.targets[0]
    assert len(fails) == 5
    fails.clear()
    least, cut = 99, False
    data.storage.cache = BlockCache(folder / "third", 10**9)
    with pytest.raises(ImageError) as caught:
        data[0]
    assert str(caught.value) == (
        f"sample 0: cannot read bytes 0 to 30,720 of the shard {data.shards[0]}\n"
        "  got: ConnectionResetError: gone (5 times)\n"
        "  expected: a server that gives parts of files\n"
        "  fix: check the URL, the network and storage_options; a run goes on with resume=True"
    )
    assert len(fails) == 5


def test_what_is_not_there_is_not_asked_for_again(folder, memory):
    with pytest.raises(DataError, match=r"^cannot read the shard memory://here/x\.tar\n  got: FileNotFoundError: "):
        ShardDataset("memory://here/x.tar", target="cls")
    with pytest.raises(DataError, match=r"^fsspec does not know what nothing://here is\n"):
        ShardDataset("nothing://here")


def test_a_missing_fsspec_is_told(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "fsspec", None)
    with pytest.raises(MissingDependencyError, match=r'fix: pip install "cvkit\[remote\]"$'):
        ShardDataset("s3://bucket/x.tar")


def test_a_server_is_asked_for_each_part_once_even_by_the_next_process(folder, server):
    url = f"{server.url}/shard-{{000000..000002}}.tar"
    here, there = ShardDataset(folder / "shards/*.tar"), ShardDataset(url)
    assert not any(one.startswith("GET") and ".tar bytes" in one for one in server.requests)  # the index lies beside it
    assert samples(there) == samples(here)
    asked = [one for one in server.requests if ".tar bytes" in one]
    assert len(asked) == len(set(asked)) == 3
    server.requests.clear()
    assert samples(ShardDataset(url)) == samples(here)
    assert not [one for one in server.requests if ".tar bytes" in one]


def test_a_server_without_an_index_is_read_once_to_build_it(folder, server):
    for path in (folder / "shards").glob("*.index"):
        path.unlink()
    there = ShardDataset(f"{server.url}/shard-{{000000..000002}}.tar")
    assert there.targets == ShardDataset(folder / "shards/*.tar").targets.tolist()


@pytest.mark.parametrize("drops", [5, 7])  # of every second one, requests in step could lose all five tries
def test_a_server_that_hangs_up_again_and_again_gives_the_same_samples(folder, server, drops):
    server.drops = drops
    for path in (folder / "shards").glob("*.index"):
        path.unlink()
    there = ShardDataset(f"{server.url}/shard-{{000000..000002}}.tar")
    assert samples(there) == samples(ShardDataset(folder / "shards/*.tar"))


def test_a_shard_that_changes_on_the_server_is_another_one_to_the_next_dataset(folder, server):
    url = f"{server.url}/shard-000000.tar"
    first = samples(ShardDataset(url))
    (folder / "shards/shard-000000.tar").write_bytes((folder / "shards/shard-000001.tar").read_bytes())
    for path in (folder / "shards").glob("*.index"):
        path.unlink()
    assert samples(ShardDataset(url)) != first


@pytest.mark.timeout(60)
def test_workers_that_were_forked_leave_the_connections_of_their_parent_alone(folder, server):
    there = ShardDataset(f"{server.url}/shard-{{000000..000002}}.tar")
    for epoch in range(3):  # the parent has connections open, and uses them again
        there.storage.cache = BlockCache(folder / f"parent{epoch}", 10**9)
        assert there[epoch][1] == there.targets[epoch]
        there.storage.cache = BlockCache(folder / f"workers{epoch}", 10**9)
        loader = Loader(there, 4, workers=2, cache=None, start_method="fork")
        assert [one for _, targets in loader for one in targets.tolist()] == there.targets.tolist()
        del loader


# --- the blocks on disk


def test_blocks_are_bounded_and_the_longest_unused_go_first(tmp_path):
    cache = BlockCache(tmp_path, 10_000)
    for number in range(50):
        cache.put(f"{number}", bytes([number]) * 1_000)
        os.utime(cache._path(f"{number}"), (number, number))
        if number > 2:
            assert cache.get("0") == bytes(1_000)  # used again and again
    cache.make_room()
    kept = [number for number in range(50) if cache.get(f"{number}") is not None]
    assert sum(path.stat().st_size for path in tmp_path.rglob("*.block")) <= 10_000
    assert kept[0] == 0
    assert kept[1:] == list(range(50 - len(kept) + 1, 50))


def test_a_damaged_block_counts_as_missing_and_what_a_killed_process_left_is_removed(tmp_path):
    cache = BlockCache(tmp_path, 10_000)
    cache.put("a", b"abc")
    path = cache._path("a")
    for damaged in (b"", b"abc", b"xbc" + path.read_bytes()[3:]):
        path.write_bytes(damaged)
        assert cache.get("a") is None
    left, new = path.parent / "old.partial", path.parent / "new.partial"
    left.write_bytes(b"x")
    new.write_bytes(b"x")
    os.utime(left, (1, 1))
    cache.make_room()
    assert (left.exists(), new.exists()) == (False, True)
    cache.put("large", bytes(10_001))
    assert cache.get("large") is None


def test_a_disk_that_takes_nothing_costs_requests_only(folder, memory, monkeypatch):
    data = ShardDataset("memory://here/*.tar")
    data.storage.cache = BlockCache(Path("/proc/nowhere"), 10**9)
    assert samples(data) == samples(ShardDataset(folder / "shards/*.tar"))


def test_files_of_this_machine_and_urls_are_not_mixed():
    with pytest.raises(
        ArgumentError, match=r"^pattern cannot be used\n  got: files of this machine and URLs together\n"
    ):
        ShardDataset(["a.tar", "memory://b.tar"])
