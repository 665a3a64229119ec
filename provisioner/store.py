"""The store: content-addressed layers and downloads, each wholly there or not at all.

    PATH/.store/
        version                       the format of all this
        cache/{sha256/aa/HEX,tar/HEX,lists/}    downloads, their raw archives, indices
        layers/DIGEST/{meta.json,root/}         a layer is named by what made it; meta.json holds its content digest
        staging/RANDOM/ + RANDOM.json           being built, as long as somebody holds the journal's lock
        trash/ quarantine/ locks/ trust/

A layer in use is leased: a shared flock on its directory, released by the kernel however the user ends (I-15). The
store knows nothing of containers: who collects hands in which layers are used.

Commit is `rename` of a directory that is not empty onto a name that may not hold one: the kernel refuses it with
ENOTEMPTY, which is RENAME_NOREPLACE for what we keep. Durability before it comes from syncfs(2), which Python does not
have: whoever opens the store brings it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import re
import secrets
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from provisioner import errand, removal
from provisioner.apart import apart
from provisioner.disk import (
    CODES,
    disk_error,
    fsync_directory,
    hold,
    is_named,
    write_new,
    write_once,
)
from provisioner.errors import StoreFailed
from provisioner.sandbox import Root, Sandbox
from valuetypes import dataclass

T = TypeVar("T")  # JSON values
VERSION = "1"
_DIGEST = re.compile(r"[0-9a-f]{64}")
_FOLDERS = (
    "cache/sha256", "cache/tar", "cache/lists", "layers", "staging", "trash", "quarantine", "locks", "trust",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One committed layer."""

    digest: str
    path: Path  # its root/
    origin: str  # "base", "service" or "tree"
    content: str = ""  # digest of what it consists of; "" while it is being committed
    epoch: int = 0  # the latest time in it


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """Something that is being built; nobody sees it."""

    path: Path  # staging/RANDOM

    @property
    def root(self) -> Path:
        """The tree itself."""
        return self.path / "root"

    @property
    def work(self) -> Path:
        """The overlay's work directory, on the same file system."""
        return self.path / "work"


class Store:
    """The directory `path` as a store; made when first written to."""

    def __init__(
        self,
        path: Path,
        *,
        sync: Callable[[int], None] | None = None,
        sandbox: Sandbox | None = None,
    ) -> None:
        """Use the store at `path`.

        `sync` has the file system of a descriptor on disk; without it a power cut may lose what was committed last.
        Where the owners in its trees are not ours to touch, as a normal user's subordinate ids, all that reads or
        removes a tree goes through `sandbox`, whose root they obey: so a digest is the same whoever built.
        """
        self.path = path
        self.sandbox = sandbox
        self._sync = sync
        self._leases: dict[str, int] = {}
        self._prepared = False

    @property
    def cache(self) -> Path:
        """Where downloads are."""
        return self.path / "cache"

    def prepare(self) -> None:
        """Make the store's folders where they are missing.

        Raises StoreFailed E_READONLY, E_NOSPACE …, E_FS_UNSUITABLE (no directory), E_STORE_VERSION (newer).
        """
        if self._prepared:
            return
        try:
            self.path.mkdir(mode=0o711, parents=True, exist_ok=True)
            for name in _FOLDERS:
                if not os.path.isdir(f"{self.path}/{name}"):
                    (self.path / name).mkdir(mode=0o700, parents=True, exist_ok=True)
            (self.path / "cache").chmod(0o700)
            version = self.path / "version"
            if not version.exists():
                write_once(version, VERSION.encode() + b"\n")
        except FileExistsError as problem:
            detail = f"{problem.filename} is no directory"
            raise StoreFailed("E_FS_UNSUITABLE", str(self.path), detail) from problem
        except OSError as problem:
            raise disk_error(problem, self.path) from problem
        self._check_version(version)
        self._prepared = True

    def _check_version(self, version: Path) -> None:
        found = version.read_bytes().strip()
        if found != VERSION.encode():
            detail = f"its format is {found[:20]!r}, this mktemplate knows {VERSION}"
            hints = ("use the mktemplate that made it, or another --path",)
            raise StoreFailed("E_STORE_VERSION", str(self.path), detail, hints=hints)

    # Drafts

    @contextlib.contextmanager
    def draft(self, kind: str) -> Iterator[Draft]:
        """Open something new, a `kind` ("base", "container" …); whatever is not committed is removed at the end."""
        self.prepare()
        try:
            path, lock = self._begin(kind)
        except OSError as problem:
            raise disk_error(problem, self.path) from problem
        try:
            yield Draft(path=path)
        except OSError as problem:
            if problem.errno in CODES:
                raise disk_error(problem, self.path) from problem
            raise
        finally:
            self.discard(path)
            os.close(lock)

    def _begin(self, kind: str) -> tuple[Path, int]:
        """Make the directories of a draft; return its path and what holds its journal's lock."""
        lock, path = -1, self.path
        while lock < 0 or not is_named(lock, journal(path)):
            if lock >= 0:
                os.close(lock)  # a recover was faster than our lock
            path = self.path / "staging" / secrets.token_hex(16)
            # The journal comes first: a directory without one is nobody's. Who holds its lock is alive.
            lock = os.open(journal(path), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            os.write(lock, json.dumps({"kind": kind, "pid": os.getpid()}).encode())
            path.mkdir(mode=0o700)
            (path / "root").mkdir()
            (path / "root").chmod(0o755)  # whatever the caller's umask
            (path / "work").mkdir(mode=0o700)
        except BaseException:
            self.discard(path)
            os.close(lock)
            raise
        return path, lock

    def discard(self, path: Path) -> None:
        """Remove the draft at `path`, then its journal."""
        if os.path.lexists(path):
            self.trash(path)
        journal(path).unlink(missing_ok=True)

    @contextlib.contextmanager
    def digested(self, draft: Draft, meta: Mapping[str, Any]) -> Iterator[Callable[[], str]]:
        """Settle the draft's root, and hash it beside the block; what is yielded waits for what it consists of.

        A base is settled before the block: what is built upon it has a later epoch, and copies times.
        """
        from provisioner import content

        work = self._settled(draft, meta)
        if not meta.get("below"):
            self.among(draft.root, partial(content.settle, newest=int(meta["epoch"])))
            work = content.digest
        if self.sandbox is None:
            with apart(lambda: work(draft.root).encode()) as told:
                yield lambda: told().decode()
        else:
            with errand.begin(
                self.sandbox, Root(upper=draft.root), lambda: work(Path("/"))
            ) as told:
                yield told

    def _settled(self, draft: Draft, meta: Mapping[str, Any]) -> Callable[[Path], str]:
        """Return what gives the draft's root the form in which it is committed, and returns its digest."""
        from provisioner import content

        with contextlib.suppress(FileNotFoundError):
            self.remove(draft.work)
        newest, overlaid = int(meta["epoch"]), bool(meta.get("below"))
        return partial(content.settled, newest=newest, overlaid=overlaid)

    def commit(self, draft: Draft, digest: str, meta: Mapping[str, Any], found: str = "") -> Layer:
        """Make the draft's root the layer `digest`; an equal layer that came first stays, and is returned.

        `meta` must hold `origin`; its `epoch` is the latest time that the layer may hold. `found`: what a root that is
        settled already consists of.
        """
        if not found:
            found = self.among(draft.root, self._settled(draft, meta))
        facts = {**meta, "content": found}
        write_new(
            draft.path / "meta.json", json.dumps(facts, indent=1, sort_keys=True).encode() + b"\n"
        )
        lease = os.open(draft.path, os.O_RDONLY | os.O_DIRECTORY)
        fcntl.flock(lease, fcntl.LOCK_SH)  # before it has its name, lest it be collected at once
        if digest not in self._leases and self.place(draft, self.path / "layers" / digest):
            self._leases[digest] = lease
        else:
            os.close(lease)
        return self.held(digest)

    def held(self, digest: str) -> Layer:
        """Return the layer `digest`, which this command has made or found before."""
        found = self.layer(digest)
        if found is None:
            detail = "the layer was collected at once"
            raise StoreFailed("E_NOTFOUND", digest[:12], detail, hints=("try again",))
        return found

    def place(self, draft: Draft, target: Path) -> bool:
        """Move the draft to `target` for good; False where something is there already."""
        try:
            self._write_out(draft.path)
            os.rename(draft.path, target)
            if self._sync:
                fsync_directory(target.parent)
        except OSError as problem:
            if problem.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                return False
            raise disk_error(problem, self.path) from problem
        return True

    def _write_out(self, path: Path) -> None:
        """Have everything on the file system of `path` on disk."""
        if self._sync:
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
            try:
                self._sync(fd)
            finally:
                os.close(fd)

    def need(self, size: int, files: int) -> None:
        """Raise StoreFailed E_NOSPACE or E_NOINODES before a build that will not fit is begun (F-09)."""
        there = os.statvfs(self.path)
        free = there.f_bavail * there.f_frsize
        hints = ("`mktemplate prune` drops what nothing uses",)
        if size > free:
            detail = f"need {size >> 20} MiB, have {free >> 20} MiB"
            raise StoreFailed("E_NOSPACE", str(self.path), detail, hints=hints, path=str(self.path))
        if there.f_files and files > there.f_favail:  # 0 where the file system has no such limit
            detail = f"need {files} inodes, have {there.f_favail}"
            raise StoreFailed(
                "E_NOINODES", str(self.path), detail, hints=hints, path=str(self.path)
            )

    def keep(self, draft: Draft) -> Path:
        """Move a failed draft's root where a person can look at it; return that place."""
        place = self.path / "quarantine" / f"failed-{draft.path.name}"
        os.rename(draft.root, place)
        return place

    # Layers

    def layer(self, digest: str) -> Layer | None:
        """Return the layer `digest` and lease it until `close`, or None."""
        path = self.path / "layers" / digest
        if not _DIGEST.fullmatch(digest):
            raise StoreFailed("E_NOTFOUND", digest[:80], "is no layer's digest")
        if digest not in self._leases and not self._lease(digest, path):
            return None
        return _read_layer(path)

    def _lease(self, digest: str, path: Path) -> bool:
        try:
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            return False
        fcntl.flock(fd, fcntl.LOCK_SH)  # whoever collects holds it exclusively, for one rename
        try:
            there = os.stat(path).st_ino == os.fstat(fd).st_ino
        except FileNotFoundError:
            there = False
        if not there:
            os.close(fd)
            return False
        self._leases[digest] = fd
        return True

    def layers(self) -> tuple[Layer, ...]:
        """Return all committed layers, without leasing them."""
        try:
            names = sorted(os.listdir(self.path / "layers"))
        except FileNotFoundError:
            return ()
        return tuple(_read_layer(self.path / "layers" / name) for name in names)

    def close(self) -> None:
        """Give up the leases."""
        for fd in self._leases.values():
            os.close(fd)
        self._leases.clear()

    @contextlib.contextmanager
    def lock(self, name: str, *, wait: bool = True, shared: bool = False) -> Iterator[None]:
        """Hold the lock `name` (flock(2)).

        Raises StoreFailed E_LOCKED where another command has it and `wait` is not set.
        """
        self.prepare()
        how = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        try:
            fd = hold(self.path / "locks" / name, how if wait else how | fcntl.LOCK_NB)
        except BlockingIOError:
            detail = "another mktemplate is working on it"
            raise StoreFailed(
                "E_LOCKED", name, detail, hints=("wait for it with --wait",)
            ) from None
        try:
            yield
        finally:
            if not shared:  # who waits for it sees that it is gone and makes it anew
                (self.path / "locks" / name).unlink(missing_ok=True)
            os.close(fd)

    # Cleaning

    def trash(self, path: Path) -> int:
        """Delete the tree `path`: out of sight by one rename, then for good; return the bytes freed."""
        gone = self.path / "trash" / secrets.token_hex(16)
        with self.deleting(fcntl.LOCK_SH):
            try:
                os.rename(path, gone)
            except FileNotFoundError:
                return 0
            return self.remove(gone)

    def remove(self, path: Path) -> int:
        """Delete the tree `path`, whoever owns what is in it; return the bytes freed. See `removal`."""
        freed = 0
        if self.sandbox is not None and path.is_dir() and not path.is_symlink():
            removal.refuse_mounts(path)
            freed = self.among(path, removal.empty)
        return freed + removal.remove(path)

    def among(self, tree: Path, function: Callable[[Path], T]) -> T:
        """Return what `function` returns for `tree`, called as the root of what is in there; it answers in JSON."""
        if self.sandbox is None:
            return function(tree)
        return errand.send(self.sandbox, Root(upper=tree), lambda: function(Path("/")))

    @contextlib.contextmanager
    def deleting(self, lock: int) -> Iterator[None]:
        """Hold the trash: shared by all who delete what they put there, alone to sweep what others left."""
        fd = os.open(self.path / "trash", os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(fd, lock)
            yield
        finally:
            os.close(fd)


def journal(draft: Path) -> Path:
    """Return the journal of the draft at this path: whoever builds it holds its lock, as long as it lives (I-15)."""
    return draft.with_suffix(".json")


def _read_layer(path: Path) -> Layer:
    try:
        meta = json.loads((path / "meta.json").read_bytes())
        return Layer(
            digest=path.name, path=path / "root", origin=str(meta["origin"]),
            content=str(meta["content"]), epoch=int(meta["epoch"]),
        )  # fmt: skip
    except (OSError, ValueError, KeyError, TypeError) as problem:
        detail = f"meta.json: {problem}"
        raise StoreFailed("E_CORRUPT", path.name[:12], detail, path=str(path)) from problem
