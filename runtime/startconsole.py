"""The console in the start program: init hands its master over, the monitor reads it and keeps it from hanging up."""

from __future__ import annotations

import struct

from runtime.consolepty import PEER, TIOCGPTPEER
from runtime.program import Slot
from runtime.records import LOAD, STORE
from runtime.scribe import CLOEXEC, F_SETFL, NONBLOCK, Scribe

_AF_UNIX, _SOCK_SEQPACKET, _MSG_CMSG_CLOEXEC = 1, 5, 0x40000000
_MESSAGE = struct.Struct("=QQQQQQQ")  # struct msghdr of 64-bit Linux
_RIGHTS, _DESCRIPTOR = 24, 16  # bytes of a control message with one descriptor, and where that is
POLLHUP = 0x10


def socket(s: Scribe) -> None:
    """Make the two ends of what init hands the master over."""
    s.must("socketpair", _AF_UNIX, _SOCK_SEQPACKET | CLOEXEC, 0, s.buffer)
    s.do(LOAD, s.buffer, 0, result="console_in", width=4)
    s.do(LOAD, s.buffer + 4, 0, result="console_out", width=4)


def receive(s: Scribe) -> None:
    """Take the master into slot `output`, once init has been executed; in the foreground its log is our output."""
    word, control = s.table.room(8), s.table.room(_RIGHTS)
    vector = s.table.place(struct.pack("=QQ", word, 8))
    message = s.table.place(_MESSAGE.pack(0, 0, vector, 1, control, _RIGHTS, 0))
    s.do("recvmsg", Slot("console_in"), message, _MSG_CMSG_CLOEXEC)
    s.do(LOAD, control + _DESCRIPTOR, 0, result="output", width=4)
    s.close("console_in")
    s.do("fcntl", Slot("output"), F_SETFL, NONBLOCK)
    s.do("ioctl", Slot("output"), TIOCGPTPEER, PEER, result="console_end")


def hung_up(s: Scribe, polled: int, after: str) -> None:
    """Open the other end anew, which somebody's logout has hung up; where that fails, read no more."""
    s.close("console_end")
    s.do("ioctl", Slot("output"), TIOCGPTPEER, PEER, result="console_end")
    s.when("console_end", -1, "no more console")
    s.go(after)
    s.mark("no more console")
    s.do(STORE, polled, -1, width=4)
    s.go(after)
