"""How an image in a registry is named: HOST[:PORT]/REPOSITORY[:TAG][@sha256:HEX]. The host is always said.

No registry is anybody's default: a short name that is looked for in one of several places is how the wrong image is
run (podman, shortnames.conf).
"""

from __future__ import annotations

import ipaddress
import re

from provisioner.errors import ProvisionError
from valuetypes import dataclass

_HOST = re.compile(
    r"(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*"
    r"|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?",
    re.ASCII,
)
_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"{_PART}(?:/{_PART})*", re.ASCII)
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}", re.ASCII)
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}", re.ASCII)
_LONGEST = 255  # characters of a repository
_FORM = "HOST[:PORT]/REPOSITORY[:TAG][@sha256:HEX]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """An image's name, understood."""

    host: str  # with its port where one is named
    repository: str
    tag: str = ""  # "" where only a digest is said
    digest: str = ""

    @property
    def wanted(self) -> str:
        """What is asked for: the digest where one is said, else the tag."""
        return self.digest or self.tag

    @property
    def base(self) -> str:
        """The address of the repository's part of the API (distribution-spec 1.1)."""
        scheme = "http" if is_loopback(self.host) else "https"
        return f"{scheme}://{self.host}/v2/{self.repository}"

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        return f"{self.host}/{self.repository}{tag}{f'@{self.digest}' if self.digest else ''}"


def parse(text: str) -> Reference:
    """Return what `text` names; ProvisionError E_USAGE for anything else."""
    rest, at, digest = text.removeprefix("docker://").partition("@")
    host, slash, path = rest.partition("/")
    if not slash or not (set(host) & {".", ":"} or host == "localhost"):
        hints = (f"say where it is: {_FORM}",)
        raise ProvisionError("E_USAGE", _shown(text), "names no registry", hints=hints)
    repository, colon, tag = path.partition(":")
    problems = (
        (not _HOST.fullmatch(host), "the host is malformed"),
        (
            not _REPOSITORY.fullmatch(repository),
            "a repository is lower case, its parts joined by /",
        ),
        (len(repository) > _LONGEST, "the repository is too long"),
        (colon and not _TAG.fullmatch(tag), "the tag is malformed"),
        (at and not _DIGEST.fullmatch(digest), "a digest is sha256: and 64 hex digits"),
    )
    for wrong, detail in problems:
        if wrong:
            raise ProvisionError("E_USAGE", _shown(text), detail, hints=(f"it is {_FORM}",))
    return Reference(
        host=host, repository=repository, tag=tag or ("" if digest else "latest"), digest=digest
    )


def is_loopback(host: str) -> bool:
    """Whether `host` is this machine by its own name: only there is plain http spoken."""
    bare = host.rpartition(":")[0] if re.search(r":[0-9]+$", host) else host
    if bare == "localhost":
        return True
    try:
        return ipaddress.ip_address(bare.strip("[]")).is_loopback
    except ValueError:
        return False


def _shown(text: str) -> str:
    return text[:120].encode("ascii", "backslashreplace").decode()
