"""Packages from the cache into a root: decompressed in threads, placed in order, recorded as unpacked.

All of it happens in one sandboxed child per batch that has pivoted into the root and holds nothing but it and the
archives' descriptors. Each archive is decompressed once per machine: its raw form stays in `cache/tar/`, verified by
its own sha256 whenever it is read.
"""

from __future__ import annotations

import contextlib
import mmap
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypedDict

from provisioner import errand, inside
from provisioner.deb import archive, database
from provisioner.deb.database import Unpacked
from provisioner.deb.order import Turn, turns
from provisioner.deb.place import Placer
from provisioner.deb.scripts import QUEUE
from provisioner.errors import StoreFailed
from provisioner.index import Package
from provisioner.progress import SILENT, Progress
from provisioner.sandbox import Root, Sandbox
from valuetypes import dataclass, replace

BATCH = 200  # packages whose two descriptors each are open at once


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """What an unpacked set of packages told about itself."""

    newest: int  # the latest modification time inside its archives
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    """One package and its open archives."""

    package: Package
    packed: int  # the .deb
    raw: int  # its raw form: to be read where `ready`, else to be written
    ready: bool


class Filled(TypedDict):
    """What the child answers."""

    fresh: list[int]  # jobs whose raw archive was written, or found damaged
    newest: int
    notes: list[str]


Fill = Callable[[], Filled]  # unpacks a batch; called inside the root


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """How a root is laid out beyond what its packages say."""

    merged_usr: tuple[str, ...] = ()  # links into usr/ that are made before anything is unpacked
    # Tells by a member's name and type whether it is left out.
    exclude: Callable[[bytes, bytes], bool] | None = None
    # Has the last batch done inside the root, and whatever follows it there: each way into a root takes 15 ms.
    last: Callable[[Fill], Filled] | None = None


PLAIN = Layout()


def unpack(
    packages: Sequence[Package],
    root: Root,
    *,
    cache: Path,
    sandbox: Sandbox,
    layout: Layout = PLAIN,
    progress: Progress = SILENT,
) -> Contents:
    """Unpack `packages`, in order, into `root` and record them in its dpkg database as unpacked.

    Raises BadArchive (E_DEB_FORMAT, E_ARCHIVE_*, E_TRUST_MISMATCH, E_CORRUPT, E_IDMAP) and StoreFailed.
    """
    order = turns(packages, configured=bool(root.lowers))
    (cache / "tar").mkdir(mode=0o700, exist_ok=True)

    def unpacked(number: int, send: Callable[[Fill], Filled]) -> Filled:
        with contextlib.ExitStack() as opened:
            jobs = [_open(package, cache, opened) for package in batches[number]]
            now = replace(layout, merged_usr=()) if number else layout
            found = send(partial(_fill, jobs, now, order))
            _keep(jobs, found["fresh"], cache)
            return found

    batches = [packages[start : start + BATCH] for start in range(0, len(packages), BATCH)]
    plain = len(batches) - bool(layout.last)
    found: list[Filled] = []
    with progress.phase("unpack", len(packages)) as advance:
        for number in range(plain):
            found.append(unpacked(number, partial(errand.send, sandbox, root)))
            advance(len(batches[number]))
    if layout.last:
        found.append(unpacked(plain, layout.last))
    return Contents(
        newest=max((each["newest"] for each in found), default=0),
        notes=tuple(note for each in found for note in each["notes"]),
    )


def folded(packages: Sequence[Package], cache: Path) -> list[Package]:
    """Return which of `packages` were never decompressed here."""
    return [each for each in packages if not (cache / "tar" / each.sha256).exists()]


@contextlib.contextmanager
def ahead(
    packages: Sequence[Package], scratch: Root, *, cache: Path, sandbox: Sandbox
) -> Iterator[None]:
    """Decompress the `folded` ones of `packages` in `scratch`, beside the block, so that `unpack` finds it done.

    Raises BadArchive and StoreFailed as `unpack` does, at the end of the block.
    """
    with contextlib.ExitStack() as opened:
        jobs = [_open(package, cache, opened) for package in folded(packages, cache)[:BATCH]]
        with errand.begin(sandbox, scratch, partial(_decompress, jobs)) as answered:
            yield
            _keep(jobs, answered(), cache)


def _decompress(jobs: Sequence[_Job]) -> list[int]:
    """Write the raw form of each, behind whoever wants the processor."""
    os.nice(10)
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        for done in [pool.submit(archive.unfold, job.packed, job.raw, job.package) for job in jobs]:
            done.result()
    return list(range(len(jobs)))


def _open(package: Package, cache: Path, opened: contextlib.ExitStack) -> _Job:
    """Open the archives of `package`; a new raw one has no name until it is whole (open(2), O_TMPFILE)."""
    packed_path = cache / "sha256" / package.sha256[:2] / package.sha256
    try:
        packed = os.open(packed_path, os.O_RDONLY)
    except FileNotFoundError:
        detail = f"its archive {package.sha256} is not in the cache"
        raise StoreFailed(
            "E_NOTFOUND", archive.title(package), detail, path=str(packed_path)
        ) from None
    opened.callback(os.close, packed)
    ready = True
    try:
        raw = os.open(cache / "tar" / package.sha256, os.O_RDONLY)
    except FileNotFoundError:
        ready = False
        raw = os.open(cache / "tar", os.O_TMPFILE | os.O_RDWR, 0o600)
        if archive.layout(packed, archive.title(package)).data.suffix == "zst":
            archive.zstd_decoder()  # imported here: the sandboxed child cannot import
    opened.callback(os.close, raw)
    return _Job(package=package, packed=packed, raw=raw, ready=ready)


def _keep(jobs: Sequence[_Job], fresh: Sequence[int], cache: Path) -> None:
    """Give the raw archives that the child wrote their names; a damaged one loses its name."""
    folder = os.open(cache / "tar", os.O_RDONLY | os.O_DIRECTORY)
    try:
        for number in fresh:
            job = jobs[number]
            if job.ready:
                os.unlink(job.package.sha256, dir_fd=folder)
                continue
            with contextlib.suppress(
                FileExistsError
            ):  # another builder was faster; the bytes are the same
                # The descriptor makes it linkat(2) with AT_SYMLINK_FOLLOW, which open(2) asks for here.
                os.link(f"/proc/self/fd/{job.raw}", job.package.sha256, dst_dir_fd=folder)
    finally:
        os.close(folder)


def _fill(jobs: Sequence[_Job], layout: Layout, order: Mapping[str, Turn]) -> Filled:
    """Decompress in threads (the decoders release the GIL), place in order, record."""
    os.umask(0o022)
    for name in layout.merged_usr:
        os.makedirs(f"/usr/{name}", 0o755, exist_ok=True)
        os.symlink(f"usr/{name}", f"/{name}")
    placer = Placer(layout.exclude)
    fresh = []
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        loaded = [pool.submit(_load, job) for job in jobs]
        try:
            for number, job in enumerate(jobs):
                views, is_fresh = loaded[number].result()
                loaded[number] = (
                    Future()
                )  # gives up the view: addresses are not memory, but maps are limited
                control = archive.read_control(views[0], job.package)
                if placer.is_for_dpkg(job.package, control, views[1]):
                    _leave_to_dpkg(job, order[job.package.name])
                else:
                    placer.place(job.package, control, views[1])
                if is_fresh:
                    fresh.append(number)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
    _record(placer, order)
    placer.finish()  # last: what is recorded lies in directories of packages
    return {"fresh": fresh, "newest": placer.newest, "notes": placer.notes}


def _load(job: _Job) -> tuple[tuple[memoryview, memoryview], bool]:
    """Return control.tar and data.tar of `job`, and whether its raw archive is new (or was found damaged)."""
    if job.ready:
        views = archive.split_raw(_view(job.raw))
        if views is not None:
            return views, False
    raw = os.memfd_create("raw", os.MFD_CLOEXEC) if job.ready else job.raw
    archive.unfold(job.packed, raw, job.package)
    return archive.halves(_view(raw)), True


def _view(fd: int) -> memoryview:
    size = os.fstat(fd).st_size
    return memoryview(mmap.mmap(fd, size, prot=mmap.PROT_READ)) if size else memoryview(b"")


def _record(placer: Placer, order: Mapping[str, Turn]) -> None:
    """Write dpkg's database, and queue the preinsts that dpkg would have run before it unpacked."""
    interests = inside.read(database.ADMIN + b"triggers/File")
    if interests:
        paths = (path for one in placer.installed for path in one.paths)
        pending = database.activate(paths, interests)
        if pending:
            inside.append(database.ADMIN + b"triggers/Unincorp", pending)
    database.write(placer.installed, placer.digests)
    for one in placer.installed:
        if "preinst" in one.control.files:
            _queue(one, order[one.package.name])


def _leave_to_dpkg(job: _Job, turn: Turn) -> None:
    """Queue the whole .deb, in its preinst's place."""
    directory = QUEUE + b"%05d/" % turn.number
    os.makedirs(directory, 0o755)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    out = os.open(directory + b"package.deb", flags, 0o600)
    try:
        archive.copy(job.packed, out, job.package)
    finally:
        os.close(out)
    _note(job.package, turn)


def _note(package: Package, turn: Turn) -> None:
    """Note beside what is queued whose it is, and what must be configured before it."""
    place = QUEUE + b"%05d" % turn.number
    if turn.before:
        inside.put(place + b".before", " ".join(turn.before).encode() + b"\n")
    inside.put(place + b".name", f"{package.name} {package.arch}\n".encode())


def _queue(one: Unpacked, turn: Turn) -> None:
    """Lay out what a preinst finds beside it as dpkg does, who it is run for, and what must come before."""
    directory = QUEUE + b"%05d/" % turn.number
    os.makedirs(directory, 0o755)
    for name, (body, mode, mtime) in one.control.files.items():
        inside.put(directory + name.encode(), body, mode, mtime)
    inside.put(directory + b"control", one.control.stanza)
    _note(one.package, turn)
