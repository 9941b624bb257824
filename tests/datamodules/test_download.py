import hashlib
import io
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.io import savemat
from support.audio_tree import noise, write_all

from datamodules.audio.speech import FSDD, LibriSpeech
from datamodules.files.archives import ARCHIVES, Archive
from datamodules.files.download import download, fetch, unpack
from datamodules.music import JSB, Muse, Nottingham, Piano

CONTENT = np.random.default_rng(0).bytes(3_000_000)


class Server:
    """A local server of one file that behaves as badly as a test asks for."""

    def __init__(self) -> None:
        self.content = CONTENT
        self.drop_after: list[int] = []
        self.ranges = True
        self.status: list[int] = []
        self.seen: list[str] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.answer(self)

            def log_message(self, *_: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True)
        self.thread.start()
        self.url = f"http://127.0.0.1:{self.http.server_port}/corpus.bin"

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        asked = handler.headers.get("Range")
        self.seen.append(asked or "all")
        if self.status:
            handler.send_error(self.status.pop(0))
            return
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and self.ranges else 0
        size = len(self.content)
        if start >= size:
            handler.send_response(416)
            handler.send_header("Content-Range", f"bytes */{size}")
            handler.end_headers()
            return
        handler.send_response(206 if start else 200)
        if start:
            handler.send_header("Content-Range", f"bytes {start}-{size - 1}/{size}")
        handler.send_header("Content-Length", str(size - start))
        handler.end_headers()
        stop = start + self.drop_after.pop(0) if self.drop_after else size
        handler.wfile.write(self.content[start:stop])
        handler.close_connection = True


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.http.shutdown()
    server.http.server_close()
    server.thread.join()


def sha256(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def test_a_file_comes_as_it_is(server: Server, tmp_path: Path) -> None:
    download(server.url, tmp_path / "a", sha256(CONTENT))
    assert (tmp_path / "a").read_bytes() == CONTENT
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_dropped_connections_are_taken_up_where_they_broke(server: Server, tmp_path: Path) -> None:
    server.drop_after = [1_000_000, 500_000, 0, 700_000]
    download(server.url, tmp_path / "a", sha256(CONTENT), pause=0)
    assert (tmp_path / "a").read_bytes() == CONTENT
    starts = ["all", "bytes=1000000-", "bytes=1500000-", "bytes=1500000-", "bytes=2200000-"]
    assert server.seen == starts


def test_a_later_run_goes_on(server: Server, tmp_path: Path) -> None:
    server.drop_after = [1_000_000, 0, 0]
    with pytest.raises(OSError, match=r"cannot be fetched .*1,000,000 bytes are in .*a\.part.*"):
        download(server.url, tmp_path / "a", sha256(CONTENT), pause=0, tries=2)
    download(server.url, tmp_path / "a", sha256(CONTENT), pause=0)
    assert (tmp_path / "a").read_bytes() == CONTENT and server.seen[-1] == "bytes=1000000-"


def test_a_finished_transfer_that_was_not_verified_yet(server: Server, tmp_path: Path) -> None:
    (tmp_path / "a.part").write_bytes(CONTENT)
    download(server.url, tmp_path / "a", sha256(CONTENT), pause=0)
    assert (tmp_path / "a").read_bytes() == CONTENT


def test_a_file_that_shrank_is_fetched_anew(server: Server, tmp_path: Path) -> None:
    (tmp_path / "a.part").write_bytes(CONTENT + b"more")
    download(server.url, tmp_path / "a", sha256(CONTENT), pause=0)
    assert (tmp_path / "a").read_bytes() == CONTENT


def test_a_server_without_ranges_starts_over(server: Server, tmp_path: Path) -> None:
    server.ranges, server.drop_after = False, [1_000_000]
    download(server.url, tmp_path / "a", sha256(CONTENT), pause=0)
    assert (tmp_path / "a").read_bytes() == CONTENT


def test_wrong_bytes_are_removed_and_reported(server: Server, tmp_path: Path) -> None:
    server.content = CONTENT[:-1] + b"?"
    with pytest.raises(ValueError, match="the sha256 checksum is .* instead of .*removed"):
        download(server.url, tmp_path / "a", sha256(CONTENT), pause=0)
    assert not list(tmp_path.iterdir())


def test_a_beginning_of_other_bytes_is_found_out(server: Server, tmp_path: Path) -> None:
    (tmp_path / "a.part").write_bytes(b"?" * 1000)
    with pytest.raises(ValueError, match="checksum"):
        download(server.url, tmp_path / "a", sha256(CONTENT), pause=0)
    download(server.url, tmp_path / "a", sha256(CONTENT), pause=0)
    assert (tmp_path / "a").read_bytes() == CONTENT


def test_a_busy_server_is_asked_again_and_a_refusal_is_not(server: Server, tmp_path: Path) -> None:
    server.status = [503, 500]
    download(server.url, tmp_path / "a", sha256(CONTENT), pause=0)
    assert len(server.seen) == 3
    server.status = [404] * 9
    with pytest.raises(OSError, match="the server says 404"):
        download(server.url, tmp_path / "b", pause=0)
    assert len(server.seen) == 4


def test_without_a_published_checksum_it_is_said(
    server: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    download(server.url, tmp_path / "a")
    assert "no checksum is published" in caplog.text


def test_no_server_is_one_sentence(server: Server, tmp_path: Path) -> None:
    url = server.url
    server.http.server_close()
    with pytest.raises(OSError, match=r"cannot be fetched .*refused"):
        download(url, tmp_path / "a", pause=0, tries=2)


def tar(path: Path, *members: tuple[str, bytes], link: tuple[str, str] | None = None) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        if link:
            info = tarfile.TarInfo(link[0])
            info.type, info.linkname = tarfile.SYMTYPE, link[1]
            archive.addfile(info)
    return path


def zipped(path: Path, *members: tuple[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members:
            archive.writestr(name, content)
    return path


MEMBERS = [("corpus/a.txt", b"a"), ("corpus/b/c.txt", b"cc")]


def files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize(("pack", "name"), [(tar, "c.tar.gz"), (zipped, "c.zip")])
def test_archives_unpack_into_what_is_there(pack: Any, name: str, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    (folder / "corpus" / "b").mkdir(parents=True)
    (folder / "corpus" / "b" / "old.txt").write_bytes(b"old")
    unpack(pack(tmp_path / name, *MEMBERS), folder, limit=3)
    assert files(folder) == {**dict(MEMBERS), "corpus/b/old.txt": b"old"}
    assert [path.name for path in folder.iterdir()] == ["corpus"]


@pytest.mark.parametrize(("pack", "name"), [(tar, "c.tar.gz"), (zipped, "c.zip")])
@pytest.mark.parametrize(
    ("members", "limit", "message"),
    [
        ([*MEMBERS, ("../out.txt", b"x")], 99, "out.txt"),
        ([*MEMBERS, ("corpus/../../out.txt", b"x")], 99, "out.txt"),
        (MEMBERS, 2, "more than 2 bytes"),
    ],
)
def test_archives_that_do_harm_leave_nothing(
    pack: Any, name: str, members: Any, limit: int, message: str, tmp_path: Path
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    with pytest.raises(ValueError, match=f"cannot be unpacked: .*{message}"):
        unpack(pack(tmp_path / name, *members), folder, limit)
    assert files(tmp_path).keys() == {name}


def test_links_out_of_the_folder_are_refused(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    path = tar(tmp_path / "c.tar.gz", *MEMBERS, link=("corpus/link", "/etc"))
    with pytest.raises(ValueError, match="cannot be unpacked: .*link"):
        unpack(path, tmp_path / "in", 99)
    assert files(tmp_path / "in") == {}


@pytest.mark.parametrize("name", ["c.tar.gz", "c.zip"])
def test_damaged_archives_are_named(name: str, tmp_path: Path) -> None:
    path = (zipped if name.endswith("zip") else tar)(tmp_path / name, ("a", CONTENT))
    path.write_bytes(path.read_bytes()[:100_000])
    (tmp_path / "in").mkdir()
    with pytest.raises(ValueError, match=f"{name} cannot be unpacked"):
        unpack(path, tmp_path / "in", 10**9)
    assert files(tmp_path / "in") == {}


def test_a_corpus_is_fetched_once(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"fsdd-master/recordings/1_theo_{i}.wav" for i in range(20)]
    write_all(tmp_path / "source", names, 8000)
    members = [(name, (tmp_path / "source" / name).read_bytes()) for name in names]
    server.content = zipped(tmp_path / "c.zip", *members).read_bytes()
    url = server.url.replace("corpus.bin", "fsdd.zip")
    archive = Archive(url, "recordings", 10**6, sha256(server.content))
    monkeypatch.setattr(FSDD, "archives", {"fsdd": archive})
    root = tmp_path / "root"
    for _ in range(2):
        data = FSDD(root, rate=8000, download=True)
        data.prepare_data()
        data.setup()
        assert [len(part) for part in data.splits.values()] == [13, 2, 5]
    assert server.seen == ["all"] and not (root / "fsdd.zip").exists()
    train = data.splits["train"]
    seed = int(train.keys[0].rpartition("_")[2].removesuffix(".wav"))
    np.testing.assert_array_equal(train[0].reshape(-1), noise(seed))


def test_only_the_subsets_in_use_are_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    monkeypatch.setattr(
        "datamodules.audio.corpus.fetch", lambda archive, root: asked.append(archive)
    )
    LibriSpeech(tmp_path, train="train-clean-100+train-clean-360", download=True).prepare_data()
    names = ["train-clean-100", "train-clean-360", "dev-clean", "test-clean"]
    assert asked == [ARCHIVES[name] for name in names]
    LibriSpeech(tmp_path).prepare_data()
    assert len(asked) == 4


def test_a_file_of_its_own_is_not_unpacked(server: Server, tmp_path: Path) -> None:
    url = server.url.replace("corpus.bin", "JSB_Chorales.mat")
    fetch(Archive(url, "JSB_Chorales.mat", 10**7), tmp_path / "jsb")
    assert (tmp_path / "jsb" / "JSB_Chorales.mat").read_bytes() == CONTENT


def test_piano_rolls_are_fetched_where_there_are_none(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rolls = np.eye(88, dtype=np.uint8)
    keys = ("traindata", "validdata", "testdata")
    content = io.BytesIO()
    savemat(content, {key: np.array([[rolls, rolls[:5]]], dtype=object) for key in keys})
    server.content = content.getvalue()
    url = server.url.replace("corpus.bin", "JSB_Chorales.mat")
    monkeypatch.setitem(ARCHIVES, "jsb", Archive(url, "JSB_Chorales.mat", 10**7))
    for _ in range(2):
        data = JSB(tmp_path / "jsb", download=True)
        data.prepare_data()
        data.setup()
        np.testing.assert_array_equal(data.splits["train"][0], rolls)
    assert server.seen == ["all"]
    assert {kind.name for kind in (JSB, Muse, Nottingham, Piano)} <= ARCHIVES.keys()
    assert all(ARCHIVES[kind.name].holds in kind.files for kind in (JSB, Muse, Nottingham, Piano))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no disk that is always full")
def test_a_full_disk_is_reported(server: Server, tmp_path: Path) -> None:
    (tmp_path / "a.part").symlink_to("/dev/full")
    with pytest.raises(OSError, match=r"a\.part cannot be written \(No space left"):
        download(server.url, tmp_path / "a")


def test_published_checksums_are_whole() -> None:
    for archive in ARCHIVES.values():
        assert archive.url.startswith("https://")
        if archive.checksum:
            algorithm, digest = archive.checksum.split(":")
            assert len(digest) == 2 * hashlib.new(algorithm).digest_size
