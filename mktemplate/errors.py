"""What the command itself refuses, and which exit status each error code has (cli.md, Errors)."""

from __future__ import annotations

_FAMILIES = {
    2: (
        "E_USAGE E_NAME E_PARAM E_TEMPLATE_SYNTAX E_TEMPLATE_UNDEFINED E_TEMPLATE_SANDBOX E_TEMPLATE_LIMIT "
        "E_TEMPLATE_PATH E_FSTAB_SYNTAX E_FSTAB_OPTION E_FSTAB_SOURCE E_FSTAB_TARGET E_CONFIG_KEY E_CONFIG_VALUE "
        "E_CONFIG_ROUNDTRIP E_CONFIG_GRANT E_SYSCTL E_ENV E_USER E_CAP E_IDMAP E_URL"
    ),
    5: (
        "E_DEB_FORMAT E_IMAGE_FORMAT E_ARCHIVE_PATH E_ARCHIVE_LINK E_ARCHIVE_TYPE E_ARCHIVE_DUP E_ARCHIVE_TRUNC "
        "E_ARCHIVE_BOMB E_ARCHIVE_LIMIT E_ROOTFS_SYMLINK E_ROOTFS_FILE E_MOUNT_TARGET E_MOUNT_SOURCE E_PROC_TAMPERED"
    ),
    6: (
        "E_KERNEL_FEATURE E_USERNS_DISABLED E_SUBUID_MISSING E_SUBUID_SMALL E_SUBUID_OVERLAP E_NEWUIDMAP E_CGROUP "
        "E_SECCOMP E_FS_UNSUITABLE E_OVERLAY_RO"
    ),
    7: "E_NOSPACE E_NOINODES E_QUOTA E_READONLY E_IO E_LOCKED E_LIMIT",
    8: "E_EXISTS E_NOTFOUND E_RUNNING E_NOTRUNNING E_CORRUPT E_STORE_VERSION E_INIT_DIED E_OOM",
    9: "E_SCRIPT_FAILED E_SCRIPT_TIMEOUT E_SCRIPT_LEFTOVER E_UPGRADE",
    130: "E_INTERRUPTED",
}
_STATUS = {code: status for status, codes in _FAMILIES.items() for code in codes.split()}
_PREFIXES = {"E_TRUST_": 3, "E_NET_": 4, "E_MIRROR_": 4}
BUG = 70


class CommandError(Exception):
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


class Several(Exception):
    """Several failures of one command, each a failure with the fields of the error contract."""

    def __init__(self, failures: tuple[Exception, ...]) -> None:
        """Keep the failures in the order in which they were met; the first one gives the exit status."""
        super().__init__("; ".join(str(failure) for failure in failures))
        self.failures = failures


class Interrupted(BaseException):
    """SIGINT, SIGTERM or SIGHUP arrived: unwind, undo, leave. No `except Exception` may stop it."""

    def __init__(self, signal: int) -> None:
        """Keep the signal's number: the exit status is 128 above it."""
        super().__init__(signal)
        self.signal = signal


def exit_status(code: str) -> int:
    """Return the exit status of an error code's family; a code that nobody knows is a bug (70)."""
    for prefix, status in _PREFIXES.items():
        if code.startswith(prefix):
            return status
    return _STATUS.get(code, BUG)


def escape(text: str) -> str:
    r"""Return `text` on one line: bytes that are not printable ASCII as `\xNN` (invariant I-22)."""
    raw = text.encode("utf-8", "surrogateescape")
    return "".join(chr(byte) if 0x20 <= byte < 0x7F else f"\\x{byte:02x}" for byte in raw)


def escape_message(text: str) -> str:
    r"""Return a message of ours on one line: control characters escaped, other languages' letters kept."""
    return "".join(
        char if (char.isprintable() and char.isascii()) or char in "…×→–’" else escape(char)
        for char in text
    )


def nearest(word: str, known: tuple[str, ...], count: int = 1) -> tuple[str, ...]:
    """Return the known words that look most like `word`."""
    import difflib

    return tuple(difflib.get_close_matches(word, known, n=count, cutoff=0.6))


def meant(word: str, known: tuple[str, ...], otherwise: str = "") -> str:
    """Return the hint that names the known word which looks most like `word`; `otherwise` where none does."""
    close = nearest(word, known)
    return f"did you mean {close[0]}?" if close else otherwise
