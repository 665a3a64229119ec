"""The rootfs tree of a template: tmpfiles.d(5) and sysusers.d(5) lines as values, and back.

Types `d f f+ f~ L L+ C c p z` and `u g m`, nothing else; seven fields, quoted as systemd quotes. Stricter than systemd:
absolute paths without `..`, no specifiers (`%%` is a percent sign), no age, `u NAME UID:GID` needs its own `g` line.
An argument `@files/NAME` names the body NAME that the template brings. `planting.plant` makes it all real.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cached_property

from valuetypes import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Directory:
    """`d PATH MODE USER GROUP`: make the directory, or set its mode and owner."""

    path: str
    mode: int = 0o755
    user: str = "root"
    group: str = "root"


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """`f`, `f+`, `f~`: write a file; `body` comes from the argument or from the template's files/."""

    path: str
    body: bytes = b""
    mode: int = 0o644
    user: str = "root"
    group: str = "root"
    replace: bool = False  # f+


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """One file from elsewhere, pinned by its hash: `[[download]]`. No line of the text means one."""

    path: str
    sha256: str
    url: str = field(repr=False)  # no part of the digest: wherever it is from, it is the same
    mode: int = 0o644
    user: str = "root"
    group: str = "root"


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """`L`, `L+`: a symbolic link."""

    path: str
    target: str
    replace: bool = False  # L+


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """`u NAME ID GECOS HOME SHELL`: a system user; `uid` None takes a free one."""

    name: str
    uid: int | None = None
    gid: int | None = None
    gecos: str = ""
    home: str = "/"
    shell: str = "/usr/sbin/nologin"


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """`g NAME ID`: a system group."""

    name: str
    gid: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """`m USER GROUP`: USER is a member of GROUP."""

    user: str
    group: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy:
    """`C`: a copy of what lies at `source` in the rootfs, where nothing is yet."""

    path: str
    source: str
    mode: int | None = None
    user: str = "root"
    group: str = "root"


@dataclass(frozen=True, slots=True, kw_only=True)
class Special:
    """`c` with a device number, or `p`: a character device or a fifo."""

    path: str
    device: tuple[int, int] | None = None
    mode: int = 0o644
    user: str = "root"
    group: str = "root"


@dataclass(frozen=True, slots=True, kw_only=True)
class Adjust:
    """`z`: mode and owner of what is there; None leaves it as it is."""

    path: str
    mode: int | None = None
    user: str | None = None
    group: str | None = None


Placed = Directory | File | Fetched | Link | Copy | Special | Adjust
Node = Placed | User | Group | Member


@dataclass(frozen=True, kw_only=True)
class Tree:
    """A whole tree, in the order of its lines."""

    nodes: tuple[Node, ...] = ()
    alone: bool = False  # whoever owns something is root by another name: there are no other ids

    @cached_property
    def digest(self) -> str:
        """The sha256 of what the tree says, bodies included."""
        told = "".join(f"{node!r}\n" for node in self.nodes) + ("alone\n" if self.alone else "")
        return hashlib.sha256(told.encode()).hexdigest()

    @property
    def accounts(self) -> tuple[User | Group | Member, ...]:
        """Users, groups and memberships: made before anything is owned by them."""
        return tuple(node for node in self.nodes if isinstance(node, User | Group | Member))

    @property
    def kept(self) -> tuple[Placed, ...]:
        """What a layer holds: all but what lies below /run and /tmp."""
        return tuple(node for node in self._placed if not is_volatile(node.path))

    @property
    def volatile(self) -> tuple[Placed, ...]:
        """What the container's init makes at each start, below /run and /tmp."""
        return tuple(node for node in self._placed if is_volatile(node.path))

    @property
    def _placed(self) -> tuple[Placed, ...]:
        return tuple(node for node in self.nodes if not isinstance(node, User | Group | Member))


_VOLATILE = ("/run/", "/tmp/", "/var/run/", "/dev/", "/proc/", "/sys/")  # noqa: S108 - names, not uses


def is_volatile(path: str) -> bool:
    """Tell whether `path` is on a file system that is empty at each start."""
    return path.startswith(_VOLATILE)


def parse(text: str, bodies: Mapping[str, bytes], source: str) -> Tree:
    """Return the tree that `text` describes; `bodies` are the files that its arguments `@files/NAME` name.

    Raises ProvisionError E_TEMPLATE_SYNTAX or E_TEMPLATE_PATH with `source` and the line.
    """
    from provisioner import treetext

    return treetext.parse(text, bodies, source)


def render(tree: Tree) -> str:
    """Return `tree` as text that `parse` reads back to an equal tree, bodies inline."""
    from provisioner import treetext

    return treetext.render(tree)
