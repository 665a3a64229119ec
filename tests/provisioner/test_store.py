"""The store: whole layers or none, leases, locks, crash recovery, collection, damage."""

from __future__ import annotations

import errno
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from provisioner import collect, content, recovery, removal
from provisioner.disk import disk_error
from provisioner.errors import StoreFailed
from provisioner.store import Draft, Layer, Store

Needs = Callable[..., None]
DIGEST = "ab" * 32
META = {"origin": "base", "epoch": 1_000_000_000}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(tmp_path / "store")
    made.prepare()
    return made


def fill(draft: Draft, text: str = "content") -> None:
    (draft.root / "etc").mkdir()
    (draft.root / "etc/file").write_text(text)
    (draft.root / "etc/link").symlink_to("/nowhere")


def committed(store: Store, digest: str = DIGEST) -> Layer:
    with store.draft("base") as draft:
        fill(draft)
        return store.commit(draft, digest, META)


def staging(store: Store) -> list[str]:
    return sorted(os.listdir(store.path / "staging"))


def test_a_committed_layer_is_found_by_its_digest(store: Store) -> None:
    layer = committed(store)

    assert store.layer(DIGEST) == layer
    assert store.layers() == (layer,)
    assert (layer.path / "etc/file").read_text() == "content"
    assert staging(store) == []


def test_times_are_set_back_to_the_epoch(store: Store) -> None:
    layer = committed(store)

    assert {int(e.status.st_mtime) for e in content.walk(layer.path)} == {1_000_000_000}


def test_two_builds_of_one_tree_have_one_content_digest(store: Store) -> None:
    first, second = committed(store), committed(store, "cd" * 32)

    assert first.content == second.content


def test_a_failed_draft_leaves_nothing(store: Store) -> None:
    with pytest.raises(ZeroDivisionError), store.draft("base") as draft:
        fill(draft)
        raise ZeroDivisionError

    assert staging(store) == []
    assert os.listdir(store.path / "trash") == []


def test_an_equal_layer_that_was_first_stays(store: Store) -> None:
    first = committed(store)
    inode = os.stat(first.path).st_ino

    second = committed(store)

    assert second == first
    assert os.stat(second.path).st_ino == inode


def test_nobody_else_can_enter_the_store(store: Store) -> None:
    committed(store)

    modes = {
        name: stat.S_IMODE(os.stat(store.path / name).st_mode) for name in os.listdir(store.path)
    }
    assert stat.S_IMODE(os.stat(store.path).st_mode) == 0o711
    assert {mode for name, mode in modes.items() if name != "version"} == {0o700}


def test_a_draft_is_placed_only_where_nothing_is(store: Store, tmp_path: Path) -> None:
    with store.draft("container") as draft:
        fill(draft)
        assert store.place(draft, tmp_path / "web")
    with store.draft("container") as draft:
        assert not store.place(draft, tmp_path / "web")

    assert (tmp_path / "web/root/etc/file").exists()
    assert staging(store) == []


def test_what_a_killed_builder_left_is_swept(store: Store) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path; from provisioner.store import Store\n"
        "with Store(Path(sys.argv[1])).draft('base') as draft:\n"
        "    (draft.root / 'half').write_text('x')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    killed = subprocess.run([sys.executable, "-c", code, store.path], cwd=Path.cwd(), check=False)
    assert killed.returncode == -signal.SIGKILL
    assert len(staging(store)) == 2

    recovery.recover(store)

    assert staging(store) == []
    assert os.listdir(store.path / "trash") == []


def test_what_a_living_builder_makes_is_left_alone(store: Store) -> None:
    with store.draft("base") as draft:
        recovery.recover(Store(store.path))

        assert draft.root.is_dir()


def test_a_leased_layer_is_not_collected(store: Store) -> None:
    committed(store)

    kept = collect.prune(Store(store.path), tuple, downloads=False)
    store.close()
    gone = collect.prune(Store(store.path), tuple, downloads=False)

    assert (kept.layers, kept.busy) == ((), (DIGEST,))
    assert gone.layers == (DIGEST,)
    assert store.layers() == ()


def test_a_used_layer_is_not_collected(store: Store) -> None:
    committed(store)
    store.close()

    assert collect.prune(Store(store.path), lambda: (DIGEST,)).layers == ()
    assert len(store.layers()) == 1


def test_a_dry_run_says_what_would_go_and_removes_nothing(store: Store) -> None:
    committed(store)
    store.close()
    download = store.cache / "sha256" / "aa"
    download.mkdir()
    (download / "aa").write_bytes(b"x" * 5000)

    said = collect.prune(store, tuple, dry_run=True)

    assert (said.layers, said.downloads) == ((DIGEST,), 1)
    assert said.size >= 5000
    assert len(store.layers()) == 1
    assert (download / "aa").exists()


def test_downloads_that_a_build_reads_are_not_collected(store: Store) -> None:
    (store.cache / "tar/x").write_bytes(b"raw")
    with store.lock("downloads", shared=True):
        busy = collect.prune(Store(store.path), tuple, layers=False)
    gone = collect.prune(Store(store.path), tuple, layers=False)

    assert (busy.downloads, busy.busy) == (0, ("downloads",))
    assert gone.downloads == 1


def test_a_lock_that_is_held_is_named(store: Store) -> None:
    with store.lock("create.web"), pytest.raises(StoreFailed) as refused:  # noqa: SIM117 - see below
        with Store(store.path).lock("create.web", wait=False):
            pass

    assert (refused.value.code, refused.value.subject) == ("E_LOCKED", "create.web")


@pytest.mark.parametrize("folder", ["sha256/00", "tar"])
def test_damaged_downloads_go_to_quarantine(store: Store, folder: str) -> None:
    (store.cache / folder).mkdir(exist_ok=True)
    (store.cache / folder / ("00" * 32)).write_bytes(b"not what the name says")

    found = collect.verify(store)

    assert len(found.damaged) == 1
    assert not (store.cache / folder / ("00" * 32)).exists()
    assert len(os.listdir(store.path / "quarantine")) == 1


@pytest.mark.parametrize("damage", ["content", "mode", "record"])
def test_a_damaged_layer_goes_to_quarantine(store: Store, damage: str) -> None:
    layer = committed(store)
    if damage == "content":
        (layer.path / "etc/file").write_text("Content")
        os.utime(layer.path / "etc/file", (1_000_000_000, 1_000_000_000))
    elif damage == "mode":
        (layer.path / "etc/file").chmod(0o777)
    else:
        (layer.path.parent / "meta.json").write_text("{")

    found = collect.verify(store)

    assert found.damaged == (f"layers/{DIGEST}",)
    assert store.layers() == ()


def test_a_sound_store_verifies(store: Store) -> None:
    committed(store)

    assert collect.verify(store).damaged == ()


def test_a_newer_store_is_left_alone(store: Store) -> None:
    (store.path / "version").write_text("2\n")

    with pytest.raises(StoreFailed, match="E_STORE_VERSION"):
        Store(store.path).prepare()


def test_a_store_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("")

    with pytest.raises(StoreFailed, match="E_FS_UNSUITABLE"):
        Store(tmp_path / "store").prepare()


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (errno.ENOSPC, "E_NOSPACE"),
        (errno.EDQUOT, "E_QUOTA"),
        (errno.EROFS, "E_READONLY"),
        (errno.EIO, "E_IO"),
        (errno.EMFILE, "E_LIMIT"),
    ],
)
def test_what_the_disk_says_has_a_code(tmp_path: Path, number: int, code: str) -> None:
    assert disk_error(OSError(number, "x"), tmp_path).code == code


def test_a_hostile_tree_is_removed(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / b"\xff\n".decode("utf-8", "surrogateescape")).write_text("x")
    os.mkfifo(tree / "pipe")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("x")
    (tree / "link").symlink_to(outside)
    here = os.open(tree, os.O_RDONLY)
    for _ in range(3000):  # deeper than PATH_MAX and than we may have descriptors
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)

    removal.remove(tree)

    assert not tree.exists()
    assert (outside / "kept").exists()


@pytest.mark.root
def test_an_immutable_file_is_removed(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "fixed").write_text("x")
    set_flag = subprocess.run(
        ["chattr", "+i", tree / "fixed", tree], capture_output=True, check=False
    )
    if set_flag.returncode:
        pytest.skip("this file system knows no immutable files")

    removal.remove(tree)

    assert not tree.exists()


@pytest.mark.root
def test_a_full_disk_is_named_and_leaves_nothing(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from provisioner.store import Store\n"
        "from provisioner.errors import StoreFailed\n"
        "store = Store(Path(sys.argv[1]) / 'store')\n"
        "try:\n"
        "    with store.draft('base') as draft:\n"
        "        (draft.root / 'big').write_bytes(bytes(2 << 20))\n"
        "except StoreFailed as failed:\n"
        "    print(failed.code, os.listdir(store.path / 'staging'), os.listdir(store.path / 'trash'))\n"
    )
    command = 'mount -t tmpfs -o size=1m none "$2" && exec "$0" -c "$1" "$2"'

    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", command, sys.executable, code, tmp_path],
        capture_output=True, text=True, check=True,
    )  # fmt: skip

    assert done.stdout == "E_NOSPACE [] []\n"


def test_a_build_that_cannot_fit_is_not_begun(store: Store) -> None:
    with pytest.raises(StoreFailed, match=r"E_NOSPACE.*need 1073741824 MiB, have [0-9]+ MiB"):
        store.need(1 << 50, 1)


BUILDER = """
import sys
from pathlib import Path
from provisioner import recovery
from provisioner.store import Store
store = Store(Path(sys.argv[1]))
recovery.recover(store)
with store.lock("it"), store.draft("base") as draft:
    (draft.root / "etc").mkdir()
    (draft.root / "etc/file").write_text("content")
    store.commit(draft, "ab" * 32, {"origin": "base", "epoch": 1})
"""
STEPS = "mkdir,openat,write,rename,unlink,unlinkat,rmdir,fsync,utimensat,ftruncate,flock,vfork"


def traced(place: Path, *inject: str) -> subprocess.CompletedProcess[str]:
    environment = {"PYTHONPATH": str(Path.cwd()), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        ["strace", "-qq", "-o", place / "trace", "-e", f"trace={STEPS}", *inject,
         sys.executable, "-S", "-c", BUILDER, place / "store"],
        env=environment, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip


def points(trace: str) -> list[tuple[str, int]]:
    """Return (call, how many of its name came before in all) of each call that is about the store."""
    counts: dict[str, int] = {}
    found = []
    begun = False
    for line in trace.splitlines():
        name = line.partition("(")[0]
        counts[name] = counts.get(name, 0) + 1
        begun = begun or "/store" in line
        if begun and "O_RDONLY" not in line:
            found.append((name, counts[name]))
    return found


@pytest.mark.root
@pytest.mark.slow
def test_a_kill_at_any_call_leaves_a_whole_store(tmp_path: Path, needs: Needs) -> None:
    needs("strace")
    (tmp_path / "first").mkdir()
    assert traced(tmp_path / "first").returncode == 0
    crashes = points((tmp_path / "first/trace").read_text())
    assert len(crashes) > 30

    for name, number in crashes:
        place = tmp_path / f"{name}.{number}"
        place.mkdir()
        killed = traced(place, "-e", f"inject={name}:signal=KILL:when={number}")
        assert killed.returncode != 0, f"{name} {number} killed nothing"

        again = subprocess.run(
            [sys.executable, "-c", BUILDER, place / "store"],
            capture_output=True,
            text=True,
            check=False,
        )

        store = Store(place / "store")
        assert again.returncode == 0, f"{name} {number}: {again.stderr}"
        assert collect.verify(store).damaged == ()
        assert len(store.layers()) == 1
        assert staging(store) == []
        store.close()


def test_prune_keeps_the_indices_that_an_accepted_release_names(tmp_path: Path) -> None:
    store = Store(tmp_path / ".store")
    store.prepare()
    lists = store.cache / "lists"
    (lists / "debian-trixie-1.InRelease").write_text(f"SHA256:\n {'a' * 64} 5 main/Packages.xz\n")
    for digest in ("a" * 64, "b" * 64):
        for ending in (".xz", ".index"):
            (lists / f"{digest}{ending}").write_text("text")

    told = collect.prune(store, lambda: (), dry_run=True)
    freed = collect.prune(store, lambda: ())

    assert (told.downloads, freed.downloads) == (2, 2)
    assert sorted(path.name for path in lists.iterdir()) == [
        f"{'a' * 64}.index", f"{'a' * 64}.xz", "debian-trixie-1.InRelease",
    ]  # fmt: skip


def test_prune_removes_locks_that_nobody_holds(tmp_path: Path) -> None:
    store = Store(tmp_path / ".store")
    with store.lock("one"):
        pass
    with store.lock("held"):
        collect.prune(store, lambda: ())

        assert [path.name for path in (store.path / "locks").iterdir()] == ["held"]
        with pytest.raises(StoreFailed, match="E_LOCKED"), store.lock("held", wait=False):
            pass


def test_who_waits_for_a_lock_that_prune_removes_takes_the_new_one(tmp_path: Path) -> None:
    store = Store(tmp_path / ".store")
    place = store.path / "locks/one"
    with store.lock("one"):
        waiting = threading.Thread(target=lambda: inside.append(_named(store, place)))
        inside: list[bool] = []
        waiting.start()
        while f":{place.stat().st_ino} " not in _waiting_locks():
            time.sleep(0.01)
        place.unlink()
    waiting.join(20)

    assert inside == [True]


def _waiting_locks() -> str:
    """Return the lines of proc_locks(5) that tell who waits."""
    lines = Path("/proc/locks").read_text().splitlines()
    return "\n".join(line for line in lines if "->" in line)


def _named(store: Store, place: Path) -> bool:
    with store.lock("one"):
        return place.exists()
