"""Who we are to a registry: what `docker login`, `podman login` or `skopeo login` left, read and never written.

    $REGISTRY_AUTH_FILE, $DOCKER_CONFIG/config.json, $XDG_RUNTIME_DIR/containers/auth.json,
    ~/.config/containers/auth.json, ~/.docker/config.json

The most special entry wins: HOST/NAMESPACE/REPOSITORY, HOST/NAMESPACE, HOST (containers-auth.json(5)). Where the file
names a credential helper, that is asked.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping

from provisioner.errors import ProvisionError
from provisioner.image.reference import Reference
from valuetypes import dataclass, field

_LARGEST = 1 << 20  # bytes
_HELPER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,60}", re.ASCII)
_PATIENCE = 60  # seconds for a helper, which may ask its user


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """A name and a secret; or a token that stands for both."""

    user: str = ""
    password: str = field(default="", repr=False)
    identity: str = field(default="", repr=False)  # a refresh token (OAuth 2)

    @property
    def basic(self) -> str:
        """The value of an Authorization header, "" where there is no password."""
        if not self.password:
            return ""
        return "Basic " + base64.b64encode(f"{self.user}:{self.password}".encode()).decode()


NOBODY = Login()


def find(reference: Reference, environ: Mapping[str, str]) -> Login:
    """Return the login for a repository, NOBODY where there is none; E_PARAM for a file that is broken."""
    for path in _files(environ):
        data = _read(path)
        if data is None:
            continue
        login = _in(data, reference, path, environ)
        if login != NOBODY:
            return login
    return NOBODY


def _files(environ: Mapping[str, str]) -> Iterator[str]:
    home = environ.get("HOME") or os.path.expanduser("~")
    for variable, rest in (
        ("REGISTRY_AUTH_FILE", ""),
        ("DOCKER_CONFIG", "/config.json"),
        ("XDG_RUNTIME_DIR", "/containers/auth.json"),
    ):
        if environ.get(variable):
            yield environ[variable] + rest
    yield f"{home}/.config/containers/auth.json"
    yield f"{home}/.docker/config.json"


def _read(path: str) -> dict[str, object] | None:
    try:
        with open(path, "rb") as file:
            body = file.read(_LARGEST + 1)
    except OSError:
        return None
    try:
        data = json.loads(body) if len(body) <= _LARGEST else None
    except (ValueError, RecursionError):
        data = None
    if not isinstance(data, dict):
        raise ProvisionError("E_PARAM", path, "is no file of credentials (JSON)")
    return data


def _in(
    data: dict[str, object], reference: Reference, path: str, environ: Mapping[str, str]
) -> Login:
    """Return the login that one file has for a repository."""
    helpers, entries = _table(data, "credHelpers"), _table(data, "auths")
    for name in _names(reference):
        if isinstance(helpers.get(name), str):
            return _ask(str(helpers[name]), name, environ)
        for key, entry in entries.items():
            if _bare(key) == name and isinstance(entry, dict) and entry:
                return _login(entry, path)
    store = data.get("credsStore")
    return _ask(store, reference.host, environ) if isinstance(store, str) and store else NOBODY


def _table(data: dict[str, object], key: str) -> dict[str, object]:
    value = data.get(key)
    return value if isinstance(value, dict) else {}


def _names(reference: Reference) -> Iterator[str]:
    parts = [reference.host, *reference.repository.split("/")]
    for count in range(len(parts), 0, -1):
        yield "/".join(parts[:count])


def _bare(key: str) -> str:
    return re.sub(r"^https?://", "", key).removesuffix("/").removesuffix("/v1").removesuffix("/v2")


def _login(entry: dict[str, object], path: str) -> Login:
    identity, auth = entry.get("identitytoken"), entry.get("auth")
    if isinstance(identity, str) and identity:
        return Login(identity=identity)
    try:
        text = base64.b64decode(str(auth or ""), validate=True).decode()
    except (binascii.Error, ValueError):
        raise ProvisionError(
            "E_PARAM", path, "an entry of auths is no base64 of NAME:SECRET"
        ) from None
    user, colon, password = text.partition(":")
    return Login(user=user, password=password.rstrip("\0")) if colon else NOBODY


def _ask(helper: str, name: str, environ: Mapping[str, str]) -> Login:
    """Return what `docker-credential-HELPER get` says; it runs as the caller, who chose it."""
    found = shutil.which(f"docker-credential-{helper}", path=environ.get("PATH"))
    if not _HELPER.fullmatch(helper) or found is None:
        raise ProvisionError("E_PARAM", f"docker-credential-{helper[:60]}", "is not installed")
    try:
        done = subprocess.run(
            [found, "get"], input=name.encode(), capture_output=True, env=dict(environ), cwd="/",
            timeout=_PATIENCE, check=False,
        )  # fmt: skip
        said = json.loads(done.stdout) if done.returncode == 0 else {}
    except (OSError, ValueError, subprocess.TimeoutExpired) as problem:
        raise ProvisionError(
            "E_PARAM", found, f"does not answer: {type(problem).__name__}"
        ) from None
    user, secret = (str(said.get(key) or "") for key in ("Username", "Secret"))
    return Login(identity=secret) if user == "<token>" else Login(user=user, password=secret)
