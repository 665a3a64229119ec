"""Copies of containers: the same layers, a copy of what was written, ids, address and identities of its own.

    standing_still(container)  a running one is frozen for the length of the block
    make(container, name)      a container like it
    lend(container, name)      one upon it: what it wrote is read there, and nothing is copied
    told_anew(text, …)         a config whose paths and names follow the container

Nothing is half-made: the copy is put together in staging and becomes PATH/NEW by one rename.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path

from mktemplate.making import assembly, hostpart, volumes, workshop
from mktemplate.template.facts import BRIDGE, INTERNAL_BRIDGE, Network
from provisioner.sandbox import Root
from provisioner.store import Draft
from runtime import bundle, copytree, hooks, idmap
from runtime import config as configs
from runtime.bundle import Bundle, Port, Record
from runtime.config import ContainerConfig
from runtime.container import Container
from runtime.kernel.mount import RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS, openat2
from valuetypes import dataclass, replace

TEXTS = ("fstab", "seccomp", "lock", "config.made", "fstab.made")
# What no two containers may share; the first start makes it (design: templates, first start).
_IDENTITIES = ("etc/machine-id", "var/lib/mktemplate/started", "var/lib/dbus/machine-id")
_HOST_KEYS = "etc/ssh"


@contextmanager
def standing_still(container: Container) -> Iterator[bool]:
    """Freeze a container that runs for the length of the block; say whether it ran."""
    runs = container.state() == "RUNNING"
    if not runs:
        yield False
        return
    container.freeze()
    try:
        yield True
    finally:
        container.unfreeze()


def trees_of(place: Path) -> tuple[str, ...]:
    """Return the names of the folders that hold what a container at `place` wrote: its root's first, its volumes."""
    tree = "rootfs" if (place / "rootfs").is_dir() else "upper"
    return (tree, volumes.FOLDER) if (place / volumes.FOLDER).is_dir() else (tree,)


def copy_trees(container: Container, source: Path, draft: Draft) -> bool:
    """Copy the trees of `source`, a place of `container`, into a draft; say whether it ran: then it stood still."""
    tree, *more = trees_of(source)
    os.rename(draft.root, draft.path / tree)
    for name in more:
        (draft.path / name).mkdir()
    top = container.path
    below, place = source.relative_to(top), draft.path.relative_to(top)
    with standing_still(container) as ran:
        for name in (tree, *more):
            copytree.copy(top, f"{below}/{name}", f"{place}/{name}", reach())
    return ran


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """From which container a text is, and whose it is to be."""

    path: Path
    old: str
    new: str

    def __call__(self, text: str) -> str:
        """Return `text` with the paths below the old container's directory below the new one's."""
        return text.replace(f"{self.path}/{self.old}/", f"{self.path}/{self.new}/")


def told_anew(
    text: str, moved: Moved, dropped: Sequence[str] = (), own: Sequence[tuple[str, str]] = ()
) -> str:
    """Return a config as `moved` says, without the keys `dropped`, with the lines `own` at its end."""
    kept = []
    for line in text.split("\n"):
        key, _, value = (part.strip() for part in line.partition("="))
        if key in dropped:
            continue
        renamed = key == "lxc.uts.name" and value == moved.old
        kept.append(f"{key} = {moved.new}" if renamed else moved(line))
    added = "\n".join(kept).rstrip("\n") + "\n" + configs.render(own)
    configs.parse(added, f"{moved.path}/{moved.new}/config")
    return added


def make(container: Container, name: str) -> tuple[str, ...]:
    """Make the container `name` as `container` is now; return what is to be said of it."""
    found, path = container.bundle, container.path
    assembly.refuse_existing(path, name)
    with ExitStack() as stack:
        store = stack.enter_context(closing(workshop.store(path)))
        stack.enter_context(store.lock(f"create.{name}"))
        draft = stack.enter_context(store.draft("container"))
        allotted = stack.enter_context(_ids(path, name, found.record))
        address = stack.enter_context(hostpart.address(path, name, _network(container.config)))
        moved = Moved(path=path, old=container.name, new=name)
        fresh = _config(container, moved, allotted, address)
        (draft.path / "config").write_text(fresh, encoding="utf-8", errors="surrogateescape")
        _copy_texts(found.path, draft.path, moved)
        ran = copy_trees(container, found.path, draft)
        tree = trees_of(draft.path)[0]
        _forget_identities(draft.path / tree)
        if found.record.flat and allotted:  # lxc-start reads fstab as that root
            os.chown(draft.path, allotted.first, allotted.first)
        if found.record.created:
            bundle.write(Bundle(path=draft.path, record=_record(found.record, name, allotted)))
        _clone_hooks(container, name, draft.path, draft.path / tree)
        if not store.place(draft, path / name):
            assembly.refuse_existing(path, name)
    return (
        *([f"{container.name} stood still while it was copied"] if ran else ()),
        *([f"publishes no port: {container.name} keeps its own"] if found.record.ports else ()),
    )


def lend(container: Container, name: str, ports: tuple[Port, ...] = ()) -> None:
    """Make the container `name` upon `container`, which must neither run nor change while this is there.

    What it writes stays in memory and ends with it, so it can be started again and again as if it were new. It has
    the identities of `container`. It belongs to this process, which destroys it.
    """
    found, path = container.bundle, container.path
    *lowers, upper = container.config.rootfs_layers
    options = [option for option in container.config.rootfs_options if option != "ro"]
    with ExitStack() as stack:
        store = stack.enter_context(closing(workshop.store(path, durable=False)))
        draft = stack.enter_context(store.draft("container"))
        allotted = stack.enter_context(_ids(path, name, found.record))
        address = stack.enter_context(hostpart.address(path, name, _network(container.config)))
        moved = Moved(path=path, old=container.name, new=name)
        os.rename(draft.root, draft.path / "upper")
        root = (
            ("lxc.rootfs.path", ":".join(("overlay", upper, *lowers, f"{path}/{name}/upper"))),
            ("lxc.rootfs.options", ",".join((*options, "volatile"))),
        )
        fresh = _config(container, moved, allotted, (*address, *root))
        (draft.path / "config").write_text(fresh, encoding="utf-8", errors="surrogateescape")
        _copy_texts(found.path, draft.path, moved)
        record = replace(
            _record(found.record, name, allotted), ports=ports, lent=True, restart="no"
        )
        bundle.write(Bundle(path=draft.path, record=record))
        store.place(draft, path / name)


def _clone_hooks(container: Container, name: str, draft: Path, tree: Path) -> None:
    """Run lxc.hook.clone of the copy, which lies in `draft` yet; LXC_ROOTFS_MOUNT is what was copied."""
    config = container.config
    told = hooks.of(config, name, draft / "config")
    if not told.at("clone"):
        return
    hooks.vouched(config, container.bundle.config)
    more = (
        ("LXC_SRC_NAME", container.name),
        ("LXC_ROOTFS_MOUNT", str(tree)),
        ("LXC_ROOTFS_PATH", str(tree)),
    )
    told.run("clone", (), more)


def _config(
    container: Container,
    moved: Moved,
    allotted: idmap.Allocation | None,
    address: tuple[tuple[str, str], ...],
) -> str:
    """Return the copy's config: ids, addresses and hardware addresses are its own."""
    dropped = {key for key, _ in address} | ({"lxc.idmap"} if allotted else set())
    dropped |= {f"lxc.net.{nic.index}.hwaddr" for nic in container.config.nics}
    own = (*(allotted.lines if allotted else ()), *address)
    text = container.bundle.config.read_text(encoding="utf-8", errors="surrogateescape")
    return told_anew(text, moved, tuple(dropped), own)


@contextmanager
def _ids(path: Path, name: str, record: Record) -> Iterator[idmap.Allocation | None]:
    if record.id_range == (0, 0):  # none, or of somebody else's making: they stay
        yield None
        return
    allotted = idmap.allocate(path, name, single=record.id_range[1] == 1)
    try:
        yield allotted
    except BaseException:
        idmap.release(path, allotted.first)
        raise


def _network(config: ContainerConfig) -> Network:
    """Return of what kind the address is that a copy needs anew."""
    for nic in config.nics[:1]:
        if nic.kind == "veth" and nic.link in {BRIDGE, INTERNAL_BRIDGE}:
            return Network(link=nic.link, ipv6=bool(nic.ipv6))
        if nic.kind == "veth" and nic.veth_mode == "router":
            return Network(kind="router", link="")
    return Network(kind="none", link="")


def _record(record: Record, name: str, allotted: idmap.Allocation | None) -> Record:
    return replace(
        record,
        name=name,
        created=bundle.now(),
        ports=(),
        connect=record.connect.replace(f" {record.name}", f" {name}"),
        options=tuple(pair for pair in record.options if pair[0] != "publish"),
        id_range=(allotted.first, allotted.count) if allotted else record.id_range,
        timings=(),
    )


def _copy_texts(source: Path, target: Path, moved: Moved) -> None:
    """Copy what belongs to the container beside its root: fstab, seccomp profile, the key pair made for it."""
    for name in TEXTS:
        with suppress(FileNotFoundError):
            text = (source / name).read_text(encoding="utf-8", errors="surrogateescape")
            (target / name).write_text(moved(text), encoding="utf-8", errors="surrogateescape")
    if (source / "ssh").is_dir():
        (target / "ssh").mkdir(mode=0o700)
        for name in ("key", "key.pub"):
            with suppress(FileNotFoundError):
                data = (source / "ssh" / name).read_bytes()
                bundle.replace_file(target / "ssh" / name, data, 0o600, durable=False)


def reach() -> copytree.Reach | None:
    """Return how a normal user works in trees of its subordinate ids; None for root, who needs nothing."""
    owners = workshop.owners()
    if owners is None:
        return None
    return lambda top, work: owners.call(Root(upper=top), work)


def _forget_identities(tree: Path) -> None:
    """Take out of a copied tree what its first start makes anew."""
    through = reach()
    if through is None:
        _without_identities(tree)
    else:
        through(tree, lambda: _without_identities(Path("/")))


def _without_identities(root: Path) -> bytes:
    top = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for name in _IDENTITIES:
            folder, _, last = name.rpartition("/")
            with suppress(OSError), _folder(top, folder) as at:
                os.unlink(last, dir_fd=at)
        with suppress(OSError), _folder(top, _HOST_KEYS) as at:
            for name in os.listdir(at):
                if name.startswith("ssh_host_") and "_key" in name:
                    os.unlink(name, dir_fd=at)
    finally:
        os.close(top)
    return b""


@contextmanager
def _folder(top: int, name: str) -> Iterator[int]:
    """Open an ordinary folder of the tree: no component may be a link."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    at = openat2(top, name, flags, resolve=RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS)
    try:
        yield at
    finally:
        os.close(at)
