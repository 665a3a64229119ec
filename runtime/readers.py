"""Values of single LXC keys: text in, typed value out, with liblxc's own ideas of what a number or a size is.

A reader raises Misread. `loads` marks what liblxc 6 takes without a word and then mistakes, drops, or refuses
at start: `check` warns of it, we do not start it.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
from collections.abc import Callable

from runtime import fstab
from runtime.errors import ConfigError
from runtime.fstab import MountEntry
from runtime.settings import UNLIMITED, Hook, IdMap, Rlimit

_NUMBER = re.compile(r"[+]?(0[xX][0-9a-fA-F]+|0[0-7]*|[1-9][0-9]*)", re.ASCII)

ARCHES = frozenset(
    "arm armel armhf armv7l athlon i386 i486 i586 i686 linux32 mips mipsel ppc powerpc x86"  # noqa: SIM905  words read better than a list
    " aarch64 amd64 arm64 linux64 mips64 mips64el ppc64 ppc64el ppc64le powerpc64 riscv64 s390x x86_64".split()
)
ARCHES_OF_7 = frozenset({"loong64", "loongarch64"})

CAPABILITIES = (  # noqa: SIM905  words read better than a list
    "chown dac_override dac_read_search fowner fsetid kill setgid setuid setpcap linux_immutable"
    " net_bind_service net_broadcast net_admin net_raw ipc_lock ipc_owner sys_module sys_rawio sys_chroot"
    " sys_ptrace sys_pacct sys_admin sys_boot sys_nice sys_resource sys_time sys_tty_config mknod lease"
    " audit_write audit_control setfcap mac_override mac_admin syslog wake_alarm block_suspend audit_read"
    " perfmon bpf checkpoint_restore"
).split()  # in the order of their numbers, linux/capability.h

RLIMITS = frozenset(
    "as core cpu data fsize locks memlock msgqueue nice nofile nproc rss rtprio rttime sigpending stack".split()  # noqa: SIM905  words read better than a list
)
NAMESPACES = ("user", "mnt", "pid", "uts", "ipc", "cgroup", "net", "time")
HOOKS = (
    "pre-start pre-mount mount autodev start-host start stop post-stop clone destroy".split()  # noqa: SIM905  words read better than a list
)  # in the order in which they run
_LEVELS = ("trace", "debug", "info", "notice", "warn", "error", "crit", "alert", "fatal")
_FACILITIES = frozenset({"daemon", *(f"local{n}" for n in range(8))})
# T-51: what belongs to the container's own net and ipc namespaces (security.md)
_SYSCTL = re.compile(
    r"net\.[a-z0-9_./-]+|kernel\.(msgmax|msgmnb|msgmni|sem|shmall|shmmax|shmmni|shm_rmid_forced)|fs\.mqueue\.[a-z_]+",
    re.ASCII,
)


class Misread(Exception):
    """A value that cannot be meant."""

    def __init__(self, detail: str, *, code: str = "E_CONFIG_VALUE", loads: bool = False) -> None:
        """Keep what is wrong; `loads` where liblxc 6 loads it all the same."""
        super().__init__(detail)
        self.detail = detail
        self.code = code
        self.loads = loads


def text(value: str) -> str:
    """Any text."""
    return value


def integer(value: str, low: int = 0, high: int = 2**32 - 1, *, loads: bool = False) -> int:
    """Read a number as strtoul(3) with base 0 reads it, between `low` and `high`."""
    if not _NUMBER.fullmatch(value.lstrip()):
        raise Misread(f"{value!r} is not a number", loads=loads)
    digits = value.strip().lstrip("+")
    number = int(digits, 8) if re.fullmatch(r"0[0-7]+", digits) else int(digits, 0)
    if not low <= number <= high:
        raise Misread(f"{value} is not between {low} and {high}", loads=loads)
    return number


def small(value: str) -> int:
    """Read a number that an unsigned int holds."""
    return integer(value)


def signed(value: str) -> int:
    """Read a number that an int holds, also below zero."""
    sign = -1 if value.startswith("-") else 1
    return sign * integer(value.removeprefix("-"), 0, 2**31 - 1)


def number_id(value: str) -> int:
    """Read a uid or gid; liblxc reads what is none as 0."""
    if value.startswith("-"):
        raise Misread(f"{value!r} is not an id", code="E_USER")
    return integer(value, 0, 2**32 - 2, loads=True)


def boolean(value: str) -> bool:
    """0 or 1."""
    return bool(integer(value, 0, 1))


def loose_boolean(value: str) -> bool:
    """0 or not 0: the two keys that liblxc does not check."""
    number = integer(value)
    if number > 1:
        raise Misread(f"{value} is neither 0 nor 1", loads=True)
    return bool(number)


def size(value: str) -> int:
    """Bytes, with liblxc's units: `512`, `64KB`, `1 MB`, `2GB`."""
    found = re.fullmatch(r"([0-9a-fA-FxX]*[0-9])\s*([a-zA-Z]{0,2})", value, re.ASCII)
    if found is None:
        raise Misread(f"{value!r} is not a size (like 64KB or 1 MB)")
    unit = {"": 0, "KB": 10, "MB": 20, "GB": 30}.get(found[2].upper())
    if unit is None:
        raise Misread(f"{found[2]!r} is not one of KB, MB, GB", loads=len(found[2]) == 1)
    return integer(found[1], 0, 2**63 - 1) << unit


def console_size(value: str) -> int:
    """Read a size of a ring buffer: rounded up to a page and a power of two; `auto` is 128 KB."""
    if value == "auto":
        return 128 << 10
    return max(4096, 1 << max(0, size(value) - 1).bit_length())


def dev_size(value: str) -> int:
    """Bytes; liblxc takes anything else for its default."""
    return integer(value, 0, 2**31 - 1, loads=True)


def arch(value: str) -> str:
    """Read a name that personality(2) can be derived from."""
    if value not in ARCHES:
        raise Misread(
            "LXC 7 knows it, LXC 6 does not"
            if value in ARCHES_OF_7
            else f"{value!r} is no architecture"
        )
    return value


def hostname(value: str) -> str:
    """Read a name of at most 64 bytes (HOST_NAME_MAX)."""
    if len(os.fsencode(value)) > 64:
        raise Misread("longer than 64 bytes")
    return value


def command(value: str) -> str:
    """Read a command line that splits into words as a shell would split it."""
    try:
        shlex.split(value)
    except ValueError as error:
        raise Misread(f"{value!r}: {error}", loads=True) from None
    return value


def absolute(value: str) -> str:
    """Read an absolute path."""
    if not value.startswith("/"):
        raise Misread(f"{value!r} is not an absolute path", loads=True)
    return value


def relative(value: str) -> str:
    """Read a relative path without `..`."""
    if value.startswith("/") or ".." in value.split("/"):
        raise Misread(f"{value!r} must be relative, without '..'")
    return value


def one_name(value: str) -> str:
    """Read a single name, no path."""
    if "/" in value or value in {".", ".."}:
        raise Misread(f"{value!r} must be a single name")
    return value


def one_name_late(value: str) -> str:
    """Read a single name; liblxc finds out at start."""
    try:
        return one_name(value)
    except Misread as error:
        raise Misread(error.detail, loads=True) from None


def signal_number(value: str) -> int:
    """Read a number, SIGNAME, SIGRTMIN+N or SIGRTMAX-N."""
    if re.fullmatch(r"[0-9]+", value, re.ASCII):
        return int(value) if int(value) <= 64 else _late_signal(int(value))
    found = re.fullmatch(r"SIGRT(MIN\+|MAX-)([0-9]{1,3})", value, re.ASCII)
    if found:
        number = 34 + int(found[2]) if found[1] == "MIN+" else 64 - int(found[2])
        if 34 <= number <= 64:
            return number
    elif value.startswith("SIG") and value in signal.Signals.__members__ and "RT" not in value:
        return int(signal.Signals[value])
    raise Misread(f"{value!r} is no signal (15, SIGTERM, SIGRTMIN+3)")


def _late_signal(number: int) -> int:
    raise Misread(f"{number} is no signal", loads=True)


def words(value: str) -> tuple[str, ...]:
    """Words between blanks."""
    return tuple(value.split())


def group_list(value: str) -> tuple[int, ...]:
    """Numbers between commas."""
    return tuple(integer(part.strip(), 0, 2**32 - 2) for part in value.split(","))


def capabilities(value: str) -> tuple[str, ...]:
    """Names of capabilities, lower case without CAP_, or their numbers."""
    found = []
    for word in value.split():
        if re.fullmatch(r"[0-9]+", word, re.ASCII) and int(word) < len(CAPABILITIES):
            found.append(CAPABILITIES[int(word)])
        elif word in CAPABILITIES or word == "none":
            found.append(word)
        else:
            raise Misread(f"{word!r}: unknown capability", code="E_CAP")
    return tuple(found)


def dropped(value: str) -> tuple[str, ...]:
    """Capabilities to drop; `none` is not one."""
    found = capabilities(value)
    if "none" in found:
        raise Misread("'none': unknown capability", code="E_CAP")
    return found


def namespaces(value: str) -> tuple[str, ...]:
    """Names of namespaces."""
    found = tuple(value.split())
    for word in found:
        if word not in NAMESPACES:
            raise Misread(f"{word!r} is no namespace ({' '.join(NAMESPACES)})")
    return found


def environment(value: str) -> tuple[tuple[str, str], ...]:
    """NAME=VALUE, or NAME to hand on our own."""
    name, equals, content = value.partition("=")
    if not equals:
        inherited = os.environ.get(name)
        if inherited is None:
            raise Misread(
                f'{name!r}: missing "=" (and we have no such variable to hand on)', code="E_ENV"
            )
        return ((name, inherited),)
    if not name:
        raise Misread("name is empty", code="E_ENV", loads=True)
    if len(os.fsencode(value)) > 128 << 10:
        raise Misread(f"{name!r}: longer than 128 KiB", code="E_ENV", loads=True)
    return ((name, content),)


def id_map(value: str) -> tuple[IdMap, ...]:
    """`u|g INSIDE OUTSIDE COUNT`."""
    parts = value.split()
    if len(parts) != 4 or parts[0] not in {"u", "g"}:
        raise Misread(f"{value!r}: expected `u|g INSIDE OUTSIDE COUNT`", code="E_IDMAP")
    try:
        inside, outside, count = (integer(part, 0, 2**64 - 1) for part in parts[1:])
    except Misread as error:
        raise Misread(error.detail, code="E_IDMAP") from None
    if not count or max(inside, outside) + count > 2**32 - 1:
        raise Misread(f"{value!r}: an extent ends below 4294967295", code="E_IDMAP", loads=True)
    return (IdMap(kind=parts[0], inside=inside, outside=outside, count=count),)


def rlimit(name: str, value: str) -> Rlimit:
    """`SOFT[:HARD]`, numbers or `unlimited`."""
    soft, colon, hard = (part.strip() for part in value.partition(":"))
    limit = Rlimit(name=name, soft=_one_limit(soft), hard=_one_limit(hard if colon else soft))
    if name not in RLIMITS and not (re.fullmatch(r"[0-9]{1,2}", name, re.ASCII) and int(name) < 16):
        raise Misread(
            f"{name!r} is no resource limit (getrlimit(2))", code="E_CONFIG_KEY", loads=True
        )
    if limit.hard != UNLIMITED and (limit.soft == UNLIMITED or limit.soft > limit.hard):
        raise Misread(f"{value}: the soft limit is above the hard one", loads=True)
    return limit


def _one_limit(value: str) -> int:
    if value in {"unlimited", "-1"}:
        return UNLIMITED
    if not re.fullmatch(r"[0-9]{1,20}", value, re.ASCII) or int(value) >= 2**64:
        raise Misread(f"{value!r} is neither a number nor `unlimited`")
    return UNLIMITED if int(value) == 2**64 - 1 else int(value)


def sysctl(name: str, value: str) -> tuple[str, str]:
    """Read a sysctl of the container's own namespaces (T-51)."""
    if not _SYSCTL.fullmatch(name) or ".." in name or "//" in name:
        raise Misread(f'"{name}" is not a namespaced sysctl', code="E_SYSCTL", loads=True)
    if not re.fullmatch(r"[-0-9A-Za-z ._\t]*", value, re.ASCII):
        raise Misread(f"{value!r} is not a value of a sysctl", code="E_SYSCTL", loads=True)
    return name, value


def proc_file(name: str, value: str) -> tuple[str, str]:
    """Read a file below /proc/PID: a name without `..` (dots are slashes)."""
    if not re.fullmatch(r"[a-z0-9_]+(\.[a-z0-9_]+)*", name, re.ASCII):
        raise Misread(f"{name!r} is no file below /proc/PID", loads=True)
    return name.replace(".", "/"), value


def cgroup_file(name: str, value: str) -> tuple[str, str]:
    """Read a control file of the container's own cgroup."""
    if not re.fullmatch(r"[A-Za-z0-9_]+(\.[A-Za-z0-9_-]+)*", name, re.ASCII):
        raise Misread(f"{name!r} is no control file", code="E_CONFIG_KEY", loads=bool(name))
    if name in {"devices.allow", "devices.deny"} and device_rule(value) is None:
        raise Misread(f"{value!r}: expected `a`, or `c|b|a MAJOR:MINOR rwm`", loads=True)
    return name, value


def device_rule(value: str) -> tuple[str, int, int, str] | None:
    """Return (type, major, minor, access) of a device rule, -1 for `*`; None where it is none."""
    if value.strip() == "a":
        return "a", -1, -1, "rwm"
    found = re.fullmatch(
        r"([abc])\s+([0-9]{1,10}|\*):([0-9]{1,10}|\*)\s+([rwm]{1,3})", value.strip(), re.ASCII
    )
    if found is None or len(set(found[4])) != len(found[4]):
        return None
    major, minor = (-1 if part == "*" else int(part) for part in found.group(2, 3))
    return found[1], major, minor, found[4]


def share(name: str, value: str) -> tuple[str, str]:
    """Read a namespace with whose it is: a pid, a container or a path."""
    if name not in NAMESPACES:
        raise Misread(f"{name!r} is no namespace ({' '.join(NAMESPACES)})")
    return name, value


def time_offset(value: str) -> int:
    """Nanoseconds of `N h|m|s|ms|us|ns`."""
    found = re.fullmatch(r"(-?[0-9]{1,18})\s*(h|m|s|ms|us|ns)", value, re.ASCII)
    if found is None:
        raise Misread(f"{value!r}: expected a number and one of h m s ms us ns")
    unit = {"h": 3600 * 10**9, "m": 60 * 10**9, "s": 10**9, "ms": 10**6, "us": 1000, "ns": 1}
    return int(found[1]) * unit[found[2]]


_AUTO = re.compile(
    r"proc(:(mixed|rw))?|sys(:(mixed|ro|rw))?"
    r"|cgroup(-full)?(:(mixed|ro|rw))?(:force)?|cgroup2(:ro)?(:force)?|shmounts:.*",
    re.ASCII,
)


def mount_auto(value: str) -> tuple[str, ...]:
    """Words of `lxc.mount.auto`."""
    for word in value.split():
        if not _AUTO.fullmatch(word):
            raise Misread(
                f"{word!r}: expected proc, sys, cgroup, cgroup2 or shmounts (lxc.container.conf(5))"
            )
    return tuple(value.split())


def rootfs_options(value: str) -> tuple[str, ...]:
    """Mount options between commas; `idmap=container`, or a user namespace that can be opened."""
    options = tuple(value.split(","))
    for option in options:
        name, _, path = option.partition("=")
        if name == "idmap" and path != "container" and not os.access(path, os.R_OK):
            raise Misread(f"{path!r} cannot be opened (write idmap=container)")
    return options


def log_level(value: str) -> str:
    """Read a level by name or by number 0 to 8."""
    if re.fullmatch(r"[0-8]", value, re.ASCII):
        return _LEVELS[int(value)]
    if value.lower() not in _LEVELS:
        raise Misread(f"{value!r} is no level ({' '.join(_LEVELS)})")
    return value.lower()


def facility(value: str) -> str:
    """Read a facility of syslog that LXC uses: daemon, local0 to local7."""
    if value.lower() not in _FACILITIES:
        raise Misread(f"{value!r} is no facility (daemon, local0 … local7)")
    return value


def proxy(value: str) -> str:
    """Read the address of a seccomp notification proxy."""
    if not value.startswith("unix:"):
        raise Misread(f"{value!r}: only unix:/PATH")
    return value


def one_of(*values: str) -> Callable[[str], str]:
    """Return a reader that takes only `values`."""

    def read(value: str) -> str:
        if value not in values:
            raise Misread(f"{value!r} is none of {' '.join(values)}")
        return value

    return read


def mount_entry(value: str) -> tuple[MountEntry, ...]:
    """One line of an fstab."""
    try:
        return fstab.parse_line(value)
    except ConfigError as error:
        raise Misread(error.detail, code=error.code, loads=True) from None


def hook(point: str, value: str) -> Hook:
    """Read a command at a point of a container's life."""
    if point not in HOOKS:
        raise Misread(f"{point!r} is no hook ({' '.join(HOOKS)})", code="E_CONFIG_KEY")
    return Hook(point=point, command=value)
