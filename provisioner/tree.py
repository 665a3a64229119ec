"""The rootfs tree of a template: tmpfiles.d(5) and sysusers.d(5) lines as values. `parse` and `apply` live here too."""

from __future__ import annotations

from dataclasses import dataclass


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
