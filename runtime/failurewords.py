"""What a start program says when a call fails: every sentence is written beforehand, but for the kernel's reason."""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Callable

from runtime.program import Failure
from runtime.records import Table
from valuetypes import dataclass

_REASON = "\x1a"
_EXECVE = {
    errno.ENOENT: "not found in the rootfs",
    errno.EACCES: "not executable",
    errno.EPERM: "not executable",
    errno.ENOEXEC: "no program for this machine",
}
_LAST_ERRNO = max(errno.errorcode)
NOT_FOUND, NOT_EXECUTABLE = 127, 126


@dataclass(frozen=True, slots=True, kw_only=True)
class Sentences:
    """Where the words are. A failure reports an index of u64 in `table`, where HEAD … STATUS stand, four bytes each."""

    table: int
    execve: int  # exit statuses by errno, for a STATUS of 0
    longest: int  # bytes of the longest text


HEAD, NAME, REASONS, TAIL, STATUS = range(0, 20, 4)
_SENTENCE = struct.Struct("=5I4x")


def place(table: Table, subject: str, status: Callable[[str], int]) -> Sentences:
    """Put the words for each Call of `table` into it; `subject` is the object of a call that names none.

    `status` is the exit status that an error's code stands for; a failed execve has its own, as in a shell.
    """
    common, of_execve = _by_errno(table, {}), _by_errno(table, _EXECVE)
    numbers: dict[tuple[str, Failure | None, bool], int] = {}
    sentences = b""
    longest = 0
    for call in table.numbered:
        for failure, unexpected in ((call.failure, False), (call.unexpected, True)):
            key = (call.name, failure, unexpected)
            if key not in numbers and (call.expect or not unexpected):
                numbers[key] = len(sentences) // 8
                words = _sentence(call.name, failure, subject, unexpected=unexpected)
                longest = max(longest, sum(map(len, words)))
                head, name, tail = (table.place(word + b"\0") for word in words)
                code = status(failure.code if failure else "E_KERNEL_FEATURE")
                is_exec = call.name == "execve"
                sentences += _SENTENCE.pack(
                    *(head, name, of_execve if is_exec else common, tail, 0 if is_exec else code)
                )
            table.reported.append(numbers.get(key, 0))
    return Sentences(
        table=table.place(sentences),
        execve=_numbers(table, [_exec_status(number) for number in _errnos()]),
        longest=longest + max(len(os.strerror(number)) for number in _errnos()),
    )


def text(code: str, subject: str, detail: str, hints: tuple[str, ...] = ()) -> str:
    """Return an error as the command prints it (cli.md, Errors)."""
    lines = [f"mktemplate: error[{code}]: {subject}: {detail}"]
    lines += [f"mktemplate: hint: {hint}" for hint in hints[:2]]
    return "".join(f"{_one_line(line)}\n" for line in lines)


def _sentence(
    name: str, failure: Failure | None, subject: str, *, unexpected: bool
) -> tuple[bytes, bytes, bytes]:
    """Return what stands before the kernel's reason, the call's name to say with it, and what stands behind."""
    if failure is None:
        detail = f"{name}: unexpected" if unexpected else ""
        failure = Failure("E_KERNEL_FEATURE", subject, detail)
    said = () if unexpected else (_REASON,)
    detail = ": ".join((*filter(None, (failure.detail,)), *said))
    head, _, tail = text(failure.code, failure.subject, detail, failure.hints).partition(_REASON)
    return (
        head.encode(),
        b"" if unexpected or name == "execve" else f"{name}: ".encode(),
        tail.encode(),
    )


def _one_line(line: str) -> str:
    r"""Return `line` with bytes that are not printable ASCII as `\xNN` (invariant I-22)."""
    if line.isascii() and line.replace(_REASON, "").isprintable():
        return line
    raw = line.encode("utf-8", "surrogateescape")
    return "".join(
        chr(byte) if 0x20 <= byte < 0x7F or byte == ord(_REASON) else f"\\x{byte:02x}"
        for byte in raw
    )


def _errnos() -> range:
    return range(_LAST_ERRNO + 1)


def _by_errno(table: Table, instead: dict[int, str]) -> int:
    """Return the address of a table of reasons: the C library's words, or those of `instead`."""
    words = ["", *(instead.get(number) or os.strerror(number) for number in _errnos()[1:])]
    return _numbers(table, [table.place(word.encode() + b"\0") for word in words])


def _exec_status(number: int) -> int:
    if number in {errno.ENOENT, errno.ENOTDIR}:
        return NOT_FOUND
    return NOT_EXECUTABLE if number in {errno.EACCES, errno.EPERM, errno.ENOEXEC} else 125


def _numbers(table: Table, values: list[int]) -> int:
    return table.place(struct.pack(f"={len(values)}Q", *values))
