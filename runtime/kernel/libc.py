"""The one door to system calls: libc's syscall(2) through bare `_ctypes`, a tenth of what importing `ctypes` costs.

Arguments are ints, bytes (passed as a pointer to them), `Buffer`s (a pointer that the kernel may write to) or None
(NULL). A failure is an OSError that shows the whole call. The interpreter's lock is kept during a call, so nothing
that may block for long belongs here: waiting is `os` and `select`.
"""

from __future__ import annotations

import _ctypes
import errno
import os
import sys
from typing import Any

# name: (x86_64, aarch64), from the kernel's unistd tables
_NUMBERS = {
    "read": (0, 63),
    "write": (1, 64),
    "close": (3, 57),
    "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135),
    "ioctl": (16, 29),
    "dup3": (292, 24),
    "getpid": (39, 172),
    "clone": (56, 220),
    "socket": (41, 198),
    "sendmsg": (46, 211),
    "execve": (59, 221),
    "execveat": (322, 281),
    "wait4": (61, 260),
    "kill": (62, 129),
    "fcntl": (72, 25),
    "chdir": (80, 49),
    "flock": (73, 32),
    "fchdir": (81, 50),
    "fchmod": (91, 52),
    "fchown": (93, 55),
    "umask": (95, 166),
    "ptrace": (101, 117),
    "syslog": (103, 116),
    "setsid": (112, 157),
    "setgroups": (116, 159),
    "setresuid": (117, 147),
    "setresgid": (119, 149),
    "capget": (125, 90),
    "capset": (126, 91),
    "personality": (135, 92),
    "statfs": (137, 43),
    "fstatfs": (138, 44),
    "setpriority": (141, 140),
    "pivot_root": (155, 41),
    "prctl": (157, 167),
    "chroot": (161, 51),
    "mount": (165, 40),
    "umount2": (166, 39),
    "reboot": (169, 142),
    "sethostname": (170, 161),
    "setdomainname": (171, 162),
    "sched_setaffinity": (203, 122),
    "clock_settime": (227, 112),
    "exit_group": (231, 94),
    "add_key": (248, 217),
    "keyctl": (250, 219),
    "inotify_add_watch": (254, 27),
    "openat": (257, 56),
    "mkdirat": (258, 34),
    "mknodat": (259, 33),
    "fchownat": (260, 54),
    "unlinkat": (263, 35),
    "symlinkat": (266, 36),
    "fchmodat": (268, 53),
    "ppoll": (271, 73),
    "unshare": (272, 97),
    "pipe2": (293, 59),
    "inotify_init1": (294, 26),
    "perf_event_open": (298, 241),
    "prlimit64": (302, 261),
    "open_by_handle_at": (304, 265),
    "syncfs": (306, 267),
    "setns": (308, 268),
    "finit_module": (313, 273),
    "seccomp": (317, 277),
    "memfd_create": (319, 279),
    "bpf": (321, 280),
    "userfaultfd": (323, 282),
    "statx": (332, 291),
    "pidfd_send_signal": (424, 424),
    "io_uring_setup": (425, 425),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "pidfd_open": (434, 434),
    "clone3": (435, 435),
    "close_range": (436, 436),
    "openat2": (437, 437),
    "pidfd_getfd": (438, 438),
    "mount_setattr": (442, 442),
}
_MACHINES = {"x86_64": 0, "aarch64": 1}
MACHINE = os.uname().machine
NUMBERS = (
    {name: row[_MACHINES[MACHINE]] for name, row in _NUMBERS.items()}
    if MACHINE in _MACHINES and sys.maxsize > 2**32
    else {}
)


class _Long(_ctypes._SimpleCData):  # type: ignore[type-arg]  # its stub is generic
    _type_ = "l"


class _Pointer(_ctypes._SimpleCData):  # type: ignore[type-arg]
    _type_ = "z"


class _Char(_ctypes._SimpleCData):  # type: ignore[type-arg]
    _type_ = "c"


class _Syscall(_ctypes.CFuncPtr):
    _flags_ = _ctypes.FUNCFLAG_CDECL | _ctypes.FUNCFLAG_PYTHONAPI | _ctypes.FUNCFLAG_USE_ERRNO
    _restype_ = _Long


_program = _ctypes.dlopen(None, 0)  # type: ignore[arg-type]  # NULL is the program itself: dlopen(3)
_syscall: Any = _Syscall(_ctypes.dlsym(_program, "syscall"))
_arrays: dict[int, Any] = {}


class Buffer:
    """`size` bytes that the kernel writes to."""

    __slots__ = ("memory",)

    def __init__(self, size: int) -> None:
        """Allocate zeroed memory."""
        if size not in _arrays:
            _arrays[size] = type("_Array", (_ctypes.Array,), {"_type_": _Char, "_length_": size})
        self.memory = _arrays[size]()

    def __bytes__(self) -> bytes:
        return bytes(self.memory)


Argument = int | bytes | Buffer | None


def address(data: bytes) -> int:
    """Return where `data` lies in memory; the caller keeps it alive while the kernel looks."""
    return int.from_bytes(bytes(_Pointer(data)), sys.byteorder)


def _native(argument: Argument) -> object:
    if isinstance(argument, int):
        return _Long(argument)
    if isinstance(argument, Buffer):
        return argument.memory
    return _Long(0) if argument is None else argument


def _text(argument: Argument) -> str:
    if isinstance(argument, Buffer):
        return "…"
    if isinstance(argument, bytes):
        head = argument.removesuffix(b"\0")
        if head.isascii() and head.decode("ascii").isprintable():
            return f'"{head.decode("ascii")}"'
        return f"{len(argument)} bytes"
    return "NULL" if argument is None else str(argument)


def raw(number: int, *arguments: Argument) -> int:
    """Make system call `number`; return its result, or -errno."""
    result = int(_syscall(_Long(number), *map(_native, arguments)))
    return -_ctypes.get_errno() if result == -1 else result


def number_of(name: str) -> int:
    """Return the number of the system call `name` on this machine; raise ENOSYS where we have no table."""
    try:
        return NUMBERS[name]
    except KeyError:
        raise OSError(errno.ENOSYS, f"{name}: no number known for machine {MACHINE}") from None


def syscall(name: str, *arguments: Argument) -> int:
    """Make the system call `name`; return its result, or raise the OSError that shows the whole call."""
    result = raw(number_of(name), *arguments)
    if result < 0:
        call = f"{name}({', '.join(map(_text, arguments))})"
        raise OSError(-result, f"{call}: {os.strerror(-result)}")
    return result


def path(name: str | bytes | os.PathLike[str]) -> bytes:
    """Return `name` as the NUL-terminated bytes the kernel takes; a NUL inside is refused."""
    data = os.fsencode(name)
    if b"\0" in data:
        raise ValueError(f"path with a NUL byte: {data!r}")
    return data + b"\0"
