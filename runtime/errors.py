"""What can go wrong between a bundle and a running process, as one tree of exceptions.

ContainerError
├ ConfigError     a line of config, fstab or seccomp      E_CONFIG_*, E_FSTAB_*, E_CAP, E_IDMAP, …
├ HostError       the host lacks something                E_KERNEL_FEATURE, E_SUBUID_*, E_CGROUP, …
├ LaunchError     a start that failed on the way          E_MOUNT_*, E_ROOTFS_*, E_OVERLAY_RO, …
├ StateError      not found, running, not running         E_EXISTS, E_NOTFOUND, E_RUNNING, …
└ ResourceError   disk, locks, limits                     E_NOSPACE, E_LOCKED, E_LIMIT, …
"""

from __future__ import annotations


class ContainerError(Exception):
    """A failure with the product's error code, its object, what is wrong and what to do."""

    def __init__(
        self,
        code: str,
        subject: str,
        detail: str,
        *,
        hints: tuple[str, ...] = (),
        path: str | None = None,
        line: int | None = None,
    ) -> None:
        """Keep the fields of the error contract; `hints` holds at most two lines."""
        super().__init__(f"{code}: {subject}: {detail}")
        self.code = code
        self.subject = subject
        self.detail = detail
        self.hints = hints
        self.path = path
        self.line = line


class ConfigError(ContainerError):
    """A line of a container's own files is wrong; `also` holds the other wrong lines of the same text."""

    also: tuple[ConfigError, ...] = ()


class HostError(ContainerError):
    """This host cannot give what the container needs."""


class LaunchError(ContainerError):
    """A start failed; nothing of it is left. `status` is what a shell would say of it: 125, 126 or 127."""

    status: int = 125


class StateError(ContainerError):
    """The container is not in the state that was asked for."""


class ResourceError(ContainerError):
    """A resource of the host ran out."""


def raise_all(problems: list[ConfigError]) -> None:
    """Raise the first of `problems`, if there is one, with the others in its `also`."""
    if problems:
        first, *others = problems
        first.also = tuple(others)
        raise first
