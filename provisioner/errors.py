"""What can go wrong between a package's name and a configured layer, as one tree of exceptions.

ProvisionError
├ UntrustedIndex    signature, hash, freshness                 E_TRUST_*, E_MIRROR_*
├ Unresolvable      no such package, or a conflict             E_NOTFOUND, E_PARAM
├ DownloadFailed    network                                    E_NET_*, E_URL
├ BadArchive        a .deb or a tree that may not be unpacked  E_DEB_*, E_ARCHIVE_*, E_ROOTFS_*
├ ConfigureFailed   a maintainer script                        E_SCRIPT_*
└ StoreFailed       disk, locks, damage                        E_NOSPACE, E_LOCKED, E_CORRUPT, …
"""

from __future__ import annotations


class ProvisionError(Exception):
    """A failure with the product's error code, its object, what is wrong and what to do.

    `also` holds the other wrong lines of the same text.
    """

    also: tuple[ProvisionError, ...] = ()

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


class UntrustedIndex(ProvisionError):
    """A repository's metadata is not accepted."""


class Unresolvable(ProvisionError):
    """The wanted packages do not exist or do not fit together."""


class DownloadFailed(ProvisionError):
    """A file could not be fetched whole."""


class BadArchive(ProvisionError):
    """An archive, or the tree it would make, is refused."""


class ConfigureFailed(ProvisionError):
    """A package's own script failed, hung, or left something running."""


class StoreFailed(ProvisionError):
    """The store cannot hold, lock or find an object."""
