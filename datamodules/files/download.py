"""Corpora from the internet: fetched in pieces if need be, verified, and unpacked as a whole."""

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
from typing import IO
from uuid import uuid4

from filelock import FileLock
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
    wrap_file,
)

from datamodules.files.archives import Archive

__all__ = ["download", "fetch", "unpack"]

log = logging.getLogger(__name__)

BLOCK = 2**20
TRIES = 8
TIMEOUT = 60.0

INTERRUPTIONS = (
    HTTPException,
    ConnectionError,
    TimeoutError,
    ssl.SSLError,
    urllib.error.URLError,
)


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


def transfer(url: str, partial: Path, progress: Progress, task: TaskID) -> None:
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
        progress.update(task, completed=start, total=total)
        with open(partial, "ab" if going_on else "wb") as file:
            while block := response.read(BLOCK):
                file.write(block)
                progress.advance(task, len(block))
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
    except Exception as error:  # whatever a damaged archive leads the libraries to
        if isinstance(error, OSError) and error.errno is not None:
            raise OSError(f"{path} cannot be unpacked into {folder} ({error.strerror})") from error
        reason = str(error).partition("\n")[0].rstrip(":") or type(error).__name__
        raise ValueError(f"{path} cannot be unpacked: {reason}") from error
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
