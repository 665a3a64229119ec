"""LXC's template `mktemplate`: `lxc-create -t mktemplate -n NAME -- TEMPLATE OPTIONS`.

lxc-create makes LXCPATH/NAME with a config and an empty rootfs, and calls this with --path, --name, --rootfs and the
words after its `--`; with lxc.idmap as root of that user namespace, and with --mapped-uid and --mapped-gid: what its
caller is in there. `create --flat` makes the container beside it, below LXCPATH/.mktemplate/UID, where what was
downloaded stays; then the rootfs takes the empty one's place and the keys are added to LXC's config.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from mktemplate.__main__ import answer
from mktemplate.cli.parsing import parse
from mktemplate.console import Console
from mktemplate.errors import CommandError, escape
from mktemplate.life import phases
from mktemplate.making import workshop
from runtime import config as configs
from runtime import copytree
from valuetypes import dataclass

_USAGE = """\
usage: lxc-create -t mktemplate -n NAME -- TEMPLATE [OPTIONS of `mktemplate create`]

    lxc-create -t mktemplate -n web -- nginx --distro debian
    lxc-start -n web

`mktemplate templates` lists the templates, `mktemplate show TEMPLATE` their options.
"""
_LXCS = ("lxc.rootfs.path", "lxc.idmap")  # stand in its config already
_SAID = ("--name", "--path", "--rootfs", "--mapped-uid", "--mapped-gid")
_DECIDED = ("--path", "--flat", "--no-userns", "--start", "--dry-run", "--json")
_OURS = ("config", "rootfs")
_TEXTS = ("fstab", "seccomp")


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What lxc-create said: where the container is to be, and whose its files are."""

    name: str
    path: Path  # LXCPATH/NAME
    rootfs: Path
    owner: tuple[int, int]  # of the files beside rootfs; -1 leaves it
    words: tuple[str, ...]  # TEMPLATE and options

    @property
    def store(self) -> Path:
        """Where layers and downloads of all containers with the same ids are kept."""
        with open("/proc/self/uid_map", encoding="ascii") as file:
            outside = file.readline().split()[1]
        return self.path.parent / ".mktemplate" / outside


def main(argv: Sequence[str]) -> int:
    """Do what lxc-create asks for; return the exit status."""
    if not argv or argv[0] in ("-h", "--help"):
        sys.stdout.write(_USAGE)
        return 0
    console = Console(quiet="-q" in argv or "--quiet" in argv)
    try:
        order = _order(argv)
        words = ("create", *order.words, order.name, "--flat", "--no-userns")
        request = parse((*words, f"--path={order.store}"))
        _clear(order)
        phases.create(request, console)
        for note in _settle(order):
            console.note(f"{order.name}: {note}")
        console.step(f"{order.name}: created in {console.timings['total']:.1f} s")
    except BaseException as failure:  # noqa: BLE001  # whatever was raised becomes a status, as the command's does
        return answer(failure, None, console)
    return 0


def _order(argv: Sequence[str]) -> Order:
    """Return what lxc-create said: its words stand before and after those of its user."""
    words, said = list(argv), dict.fromkeys(_SAID, "")
    while words and words[0].partition("=")[0] in _SAID:
        option, _, text = words.pop(0).partition("=")
        said[option] = text
    while len(words) > 1 and words[-2] in _SAID:
        said[words[-2]] = words[-1]
        del words[-2:]
    name, path, rootfs, uid, gid = said.values()
    if not (name and path and rootfs and words):
        raise CommandError(
            "E_USAGE",
            "lxc-mktemplate",
            "is called by lxc-create, with one of our templates after --",
            hints=("lxc-create -t mktemplate -n web -- nginx --distro debian",),
        )
    for word in words:
        if word == "--" or word.partition("=")[0] in _DECIDED:
            raise CommandError("E_USAGE", escape(word), "is decided by lxc-create")
    return Order(
        name=name,
        path=Path(path),
        rootfs=Path(rootfs.removeprefix("dir:")),
        owner=(int(uid or -1), int(gid or -1)),
        words=tuple(words),
    )


def _clear(order: Order) -> None:
    """Take away what was left by a creation of this name that was killed: LXC holds its own lock on the name."""
    left = order.store / order.name
    if os.path.lexists(left):
        with closing(workshop.store(order.store)) as store:
            store.prepare()
            store.trash(left)


def _settle(order: Order) -> tuple[str, ...]:
    """Move what was made to where LXC wants it, and add our keys to its config; return what is to be said of it."""
    made = order.store / order.name
    try:
        os.rename(made / "rootfs", order.rootfs)
    except OSError:  # another file system, or a mount: what is in it then
        copytree.copy(Path("/"), f"{made}/rootfs"[1:], str(order.rootfs.absolute())[1:])
    config = order.path / "config"
    before = config.read_text(encoding="utf-8", errors="surrogateescape")
    ours = (made / "config").read_text(encoding="utf-8", errors="surrogateescape")
    added, notes = _added(before, ours.replace(f"{made}/", f"{order.path}/"))
    for name in sorted(os.listdir(made)):
        if name in _TEXTS:
            text = (made / name).read_text(encoding="utf-8", errors="surrogateescape")
            data = text.replace(f"{made}/", f"{order.path}/").encode("utf-8", "surrogateescape")
            (made / name).write_bytes(data)
        if name not in _OURS:
            os.rename(made / name, order.path / name)
            _give(order.path / name, order.owner)
    with config.open("a", encoding="utf-8", errors="surrogateescape") as file:
        file.write(added)
    _clear(order)
    return notes


def _added(before: str, ours: str) -> tuple[str, tuple[str, ...]]:
    """Return the lines for LXC's config; a network of its without an address goes, for nothing inside asks for one."""
    given = configs.parse(before)
    stays = any(nic.ipv4 or nic.ipv6 or nic.kind in {"empty", "none"} for nic in given.nics)
    kept, notes = ["", "# what mktemplate adds"], []
    if given.nics and not stays:
        kept.append("lxc.net =")
        notes.append(
            "its network is a routed veth with an address of its own: nothing inside speaks DHCP"
        )
    for line in ours.split("\n"):
        key = line.partition("=")[0].strip()
        if key in _LXCS or (stays and key.startswith("lxc.net.")) or not key.startswith("lxc."):
            continue
        kept.append(line)
    return "\n".join(kept) + "\n", tuple(notes)


def _give(path: Path, owner: tuple[int, int]) -> None:
    """Make a file, or a folder and what is in it, the caller's."""
    for place in (path, *(path.iterdir() if path.is_dir() else ())):
        os.chown(place, *owner, follow_symlinks=False)
