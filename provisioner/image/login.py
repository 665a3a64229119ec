"""A registry's challenge → the header that answers it: Basic, or a token of the place that it names.

The secret goes to nobody but the registry and the place that it names, over https; plain http only where the registry
itself is this machine.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping
from urllib.parse import quote, urlencode, urlsplit

from provisioner.errors import DownloadFailed
from provisioner.image import credentials, document
from provisioner.image.credentials import NOBODY, Login
from provisioner.image.reference import Reference, is_loopback
from provisioner.image.wire import Ask, Wire, require
from provisioner.transfer import body

_WORD = re.compile(r'([A-Za-z_]{1,40})="([^"\\]{0,2000})"', re.ASCII)
_TOKEN = re.compile(r"[A-Za-z0-9._~+/=:-]{1,65536}", re.ASCII)  # RFC 6750, 2.1
_LARGEST = 1 << 20  # bytes of a token's answer


class Identity:
    """Who we are to the registry of one repository. Used by several threads at once."""

    def __init__(self, reference: Reference, wire: Wire, environ: Mapping[str, str]) -> None:
        """Look for a login only when the registry asks for one."""
        self._reference = reference
        self._wire = wire
        self._environ = environ
        self._header = ""
        self._lock = threading.Lock()

    def headers(self) -> dict[str, str]:
        """Return what a request to the registry carries."""
        return {"Authorization": self._header} if self._header else {}

    def answer(self, challenge: str, actions: str, refused: Mapping[str, str]) -> None:
        """Find the header for a 401 that came to a request with the headers `refused`; E_NET_HTTP for none."""
        with self._lock:
            if self._header and refused.get("Authorization") != self._header:
                return  # another thread was faster
            login = credentials.find(self._reference, self._environ)
            scheme, _, rest = challenge.partition(" ")
            words = {key.lower(): value for key, value in _WORD.findall(rest)}
            if scheme.lower() == "bearer" and "realm" in words:
                self._header = f"Bearer {self._token(words, actions, login)}"
            elif scheme.lower() == "basic" and login.basic and not self._header:
                self._header = login.basic
            else:
                raise self.locked(login)

    def locked(self, login: Login = NOBODY) -> DownloadFailed:
        """Return the error for a registry that will not be satisfied."""
        host = self._reference.host
        detail = "refuses the login that is known" if login != NOBODY else "asks for a login"
        hints = (f"log in first: skopeo login {host}, docker login {host}",)
        return DownloadFailed("E_NET_HTTP", str(self._reference), detail, hints=hints)

    def _token(self, words: Mapping[str, str], actions: str, login: Login) -> str:
        """Return a token of the place that the challenge names."""
        realm = self._realm(words["realm"])
        scope = f"repository:{self._reference.repository}:{actions}"
        asked = {"service": words.get("service", ""), "scope": scope}
        if login.identity:
            form = {**asked, "grant_type": "refresh_token", "client_id": "mktemplate"}
            form["refresh_token"] = login.identity
            headers = {"Content-Type": "application/x-www-form-urlencoded"}
            ask = Ask(method="POST", url=realm, headers=headers, body=urlencode(form).encode())
        else:
            query = urlencode(
                {key: value for key, value in asked.items() if value}, quote_via=quote
            )
            headers = {"Authorization": login.basic} if login.basic else {}
            ask = Ask(
                method="GET", url=f"{realm}{'&' if '?' in realm else '?'}{query}", headers=headers
            )
        with self._wire.answer(ask, self._wire.patience(0)) as response:
            if response.status in (401, 403):
                raise self.locked(login)
            require(ask, response, 200)
            said = document.parse(body(realm, response, _LARGEST), realm)
        token = said.get("token") or said.get("access_token")
        if not isinstance(token, str) or not _TOKEN.fullmatch(token):
            raise DownloadFailed("E_NET_HTTP", realm, "gives no token")
        return token

    def _realm(self, text: str) -> str:
        """Return where tokens are given, if a secret may go there."""
        base = self._reference.base
        realm = self._wire.leads(base, base, text)  # never inwards, never from https to http
        split = urlsplit(realm)
        if split.scheme != "https" and not is_loopback(split.netloc):
            raise DownloadFailed("E_NET_REDIRECT", realm, "a secret goes over https only")
        return realm
