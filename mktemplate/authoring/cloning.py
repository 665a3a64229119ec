"""git as the way that templates come: one commit is fetched, and read as a tar. Nothing of it is checked out or run."""

from __future__ import annotations

import os
import re
import resource
import subprocess
import tempfile
from collections.abc import Mapping, Sequence

from mktemplate.errors import CommandError, escape
from valuetypes import dataclass

_GIT = "/usr/bin/git"
_URL = re.compile(r"(?:https?|ssh|git|file)://[!-~]{1,1000}", re.ASCII)
_SCP = re.compile(
    r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}@[A-Za-z0-9][A-Za-z0-9.-]{0,252}:[!-~]{1,1000}", re.ASCII
)
_REFERENCE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_./-]{0,199}", re.ASCII)
_TARS = (".tar", ".tar.gz", ".tgz", ".tar.xz", ".tar.zst")
_LARGEST = 32 << 20  # bytes of any file that git writes
_SECONDS = 120
# No hook, no monitor, no submodule, and every object is looked at before it is kept.
_CAREFUL = (
    "core.hooksPath=/dev/null", "core.fsmonitor=false", "fetch.recurseSubmodules=false",
    "transfer.fsckObjects=true", "gc.auto=0", "maintenance.auto=false",
)  # fmt: skip
_KEPT = ("HOME", "SSH_AUTH_SOCK", "http_proxy", "https_proxy", "no_proxy", "XDG_CONFIG_HOME")


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """One commit of a repository."""

    commit: str
    tar: bytes


def is_repository(address: str) -> bool:
    """Whether git, and nothing else, is meant by `address`."""
    if address.endswith(_TARS):
        return False
    bare = os.path.isfile(f"{address}/HEAD") and os.path.isdir(f"{address}/objects")
    return bare or bool(_URL.fullmatch(address) or _SCP.fullmatch(address))


def fetch(address: str, reference: str) -> Fetched:
    """Return the commit that `reference` (a branch or tag; "" = the newest) names in the repository at `address`.

    E_NET_CONNECT where git cannot have it; E_KERNEL_FEATURE without git.
    """
    if reference and not (_REFERENCE.fullmatch(reference) and ".." not in reference):
        raise CommandError("E_PARAM", f"#{escape(reference)}", "is no branch and no tag")
    if not os.path.exists(_GIT):
        raise CommandError("E_KERNEL_FEATURE", _GIT, "not found", hints=("apt install git",))
    if "://" not in address and ":" not in address:
        address = f"file://{os.path.abspath(address)}"
    own = {name: os.environ[name] for name in _KEPT if name in os.environ}
    with tempfile.TemporaryDirectory(prefix="mktemplate-git-") as place:
        at = (f"--git-dir={place}/git",)
        _git((*at, "init", "--quiet", "--bare", "--template="), own, address)
        depth = ("fetch", "--quiet", "--depth=1", "--no-tags", "--no-write-fetch-head")
        refspec = f"+{reference or 'HEAD'}:refs/heads/fetched"
        _git((*at, *depth, "--", address, refspec), own, address)
        # The caller's own configuration may know filters: they have no business with what was fetched.
        alone = {"GIT_CONFIG_GLOBAL": "/dev/null", "HOME": place}
        commit = _git((*at, "rev-parse", "refs/heads/fetched^{commit}"), alone, address)
        packed = f"--output={place}/tar"
        _git((*at, "archive", "--format=tar", packed, "refs/heads/fetched^{tree}"), alone, address)
        with open(f"{place}/tar", "rb") as file:
            return Fetched(commit=commit.decode("ascii").strip(), tar=file.read())


def _git(argv: Sequence[str], environment: Mapping[str, str], address: str) -> bytes:
    """Return what git prints; E_NET_CONNECT with its own words where it fails."""
    careful = [word for setting in _CAREFUL for word in ("-c", setting)]
    fixed = {
        "PATH": "/usr/bin:/bin",
        "LC_ALL": "C",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ALLOW_PROTOCOL": "https:http:ssh:git:file",
    }
    try:
        done = subprocess.run(
            [_GIT, *careful, *argv],
            env={**environment, **fixed},
            cwd="/",
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_SECONDS,
            check=False,
            preexec_fn=_limit,  # one call, and no other thread is running
        )
    except subprocess.TimeoutExpired:
        raise CommandError(
            "E_NET_TIMEOUT", escape(address), f"git needs more than {_SECONDS} s"
        ) from None
    if done.returncode != 0:
        words = done.stderr.decode("utf-8", "replace").strip().split("\n")[-1][:400]
        raise CommandError("E_NET_CONNECT", escape(address), f"git: {escape(words)}")
    return done.stdout


def _limit() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (_LARGEST, _LARGEST))
