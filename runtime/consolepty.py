"""/dev/console: the first terminal of the container's own devpts, whose other end its monitor holds.

Init makes it and hands the master over a socket. What is written there goes to the log; `mktemplate console` takes
the master from the monitor to type on it. Where lxc.console.path is `none` there is no such device, and init's
streams are a pipe to the log.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct

from runtime.config import ContainerConfig
from runtime.kernel import mount as m
from runtime.program import Call, Failure, Pointer, Slot, Struct
from runtime.steps import attach, c, close

TIOCGPTPEER = 0x5441  # ioctl_tty(2)
PEER = os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC
_TIOCSPTLCK, _TIOCSCTTY = 0x40045431, 0x540E
_SOL_SOCKET, _SCM_RIGHTS, _MSG_NOSIGNAL = 1, 1, 0x4000
_RIGHTS = struct.calcsize("@Qiii4x")  # struct cmsghdr, one descriptor, and what aligns it
_FAILURE = Failure("E_KERNEL_FEATURE", "/dev/console", "cannot be made")


def has(config: ContainerConfig) -> bool:
    """Whether the container has a console: LXC's default, where it has terminals at all."""
    return not config.console_path and config.autodev and config.pty_max + config.tty_max > 0


def make() -> tuple[Call, ...]:
    """Make it, once devpts is in slot `pts` and /dev in `dev`; its end for init stays in slot `console`."""
    control = Struct("@Qiiii", (20, _SOL_SOCKET, _SCM_RIGHTS, Slot("master"), 0))
    word = Struct("@PQ", (Pointer(b"c"), 1))
    message = Struct("@PIPQPQi", (0, 0, Pointer(word), 1, Pointer(control), _RIGHTS, 0))
    return (
        Call(
            name="openat",
            args=(Slot("pts"), c("ptmx"), os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC, 0),
            result="master",
            why="the console: the first terminal of our own devpts",
            failure=_FAILURE,
        ),
        Call(name="ioctl", args=(Slot("master"), _TIOCSPTLCK, bytes(4)), failure=_FAILURE),
        Call(
            name="ioctl",
            args=(Slot("master"), TIOCGPTPEER, PEER),
            result="console",
            failure=_FAILURE,
        ),
        Call(
            name="sendmsg",
            args=(Slot("console_out"), message, _MSG_NOSIGNAL),
            why="its other end is the monitor's",
            failure=_FAILURE,
        ),
        close("master"),
        Call(name="mknodat", args=(Slot("dev"), c("console"), 0o100600, 0)),
        Call(
            name="open_tree",
            args=(Slot("dev"), c("pts/0"), m.OPEN_TREE_CLONE | m.OPEN_TREE_CLOEXEC),
            result="node",
            failure=_FAILURE,
        ),
        attach("node", Slot("dev"), "console"),
        close("node"),
    )


def session() -> tuple[Call, ...]:
    """Take it as terminal and standard streams, but for those that the starter gave: it stays in the foreground."""
    names = enumerate(("stdin", "stdout", "stderr"))
    return (
        *(Call(name="dup3", args=(Slot("console"), number, 0)) for number in range(3)),
        *(
            Call(name="dup3", args=(Slot(name), number, 0), ignore=(errno.EBADF,))
            for number, name in names
        ),
        Call(name="ioctl", args=(Slot("console"), _TIOCSCTTY, 0), ignore=(errno.EPERM,)),
    )


def again(master: int) -> int:
    """Open init's end anew: while nobody has it open, `master` only ever says that it was hung up."""
    return fcntl.ioctl(master, TIOCGPTPEER, PEER)
