"""The addresses that are fetched: http or https, host, port and path; nothing that bends a request line."""

from __future__ import annotations

import re
from urllib.parse import SplitResult, urlsplit

from provisioner.errors import ProvisionError

_HOST = re.compile(
    r"[A-Za-z0-9]([A-Za-z0-9.-]{0,252}[A-Za-z0-9])?|\[[0-9A-Fa-f:.]{2,45}\]", re.ASCII
)


def port_of(split: SplitResult) -> int:
    """Return the port of an address, its scheme's where it names none."""
    return split.port or (443 if split.scheme == "https" else 80)


def check_url(url: str, *, subject: str = "") -> str:
    """Return `url` without a slash at its end, or raise E_URL: http(s), host, port and path, nothing else (D-1)."""
    try:
        split = urlsplit(url)
        port = split.port
    except ValueError:
        raise _bad_url(subject or url, "the host or the port is malformed") from None
    problems = (
        (
            re.search(r"[^\x21-\x7e]", url),
            "spaces, control and non-ASCII characters are not allowed",
        ),
        (split.scheme not in {"http", "https"}, "only http:// and https:// are supported"),
        ("@" in split.netloc, "user information is not allowed"),
        ("?" in url or "#" in url, "a query or fragment is not allowed"),
        (not _HOST.fullmatch(split.netloc.removesuffix(f":{port}")), "the host name is malformed"),
        (port == 0, "port 0 is not allowed"),
        (re.search(r"(^|/)\.\.(/|$)|[\\\"<>^`{|}]", split.path), "the path is malformed"),
    )
    for wrong, detail in problems:
        if wrong:
            raise _bad_url(subject or url, detail)
    return url.rstrip("/")


def _bad_url(subject: str, detail: str) -> ProvisionError:
    shown = subject.encode("ascii", "backslashreplace").decode()
    printable = re.sub(r"[\x00-\x1f\x7f]", lambda match: f"\\x{ord(match[0]):02x}", shown)
    hidden = re.sub(r"//[^/@]*@", "//…@", printable)
    return ProvisionError("E_URL", hidden, detail, hints=("a mirror is http://HOST[:PORT]/PATH",))
