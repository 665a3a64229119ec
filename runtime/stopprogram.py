"""PATH/NAME/stop: a program that asks a container to end, and waits until it has, without Python.

    stop  -  SCRIPT  --in-python  stop  NAME

It asks init by the signal of its configuration, or kills one that would not notice it, and waits for the monitor, which
gives everything back. Whatever is not as it was when this was written (boot, files), or is no matter of asking and
waiting (a container that is frozen, or does not run), is left to SCRIPT with the words that follow it.
"""

from __future__ import annotations

import signal
import struct
from pathlib import Path

from runtime import execentry, startentry, startothers
from runtime.duties import Duties
from runtime.elf import executable
from runtime.execentry import FALL_BACK
from runtime.kernel import mount as m
from runtime.performer.x86_64 import CODE
from runtime.program import Slot
from runtime.records import ADD, FIND, HANDLER, LOAD, START, TEXT, pattern
from runtime.scribe import BUFFER, CLOEXEC, Scribe, looks_as_it_did

_SPACES_TO_MONITOR, _SPACES_TO_INIT = 5, 12  # from the phase to their pids in a run state
# Seconds between asking and killing, and until what was killed must be dead; ppoll(2) leaves in each what is left.
_GRACE, _GONE = (struct.pack("=2q", seconds, 0) for seconds in (10, 20))
_DIGITS, _BITS = 16, 4  # of a signal mask in proc_pid_status(5), of a digit
_HEARD = {
    b"gCgt": 6,
    b"gBlk": 6,
}  # what stands before the digits of SigCgt and SigBlk, and how long


def write(duties: Duties) -> bytes:
    """Return the ELF that stops the container of `duties`."""
    s = Scribe()
    s.mark(START)
    for _ in range(3):  # no file of ours may become a standard stream
        s.do("openat", m.AT_FDCWD, s.text("/dev/null"), 2)
    s.do("close_range", 3, 0xFFFFFFFF, 0)
    s.is_of_this_boot(duties.boot)
    s.table.calls([looks_as_it_did(path, look) for path, look in duties.basis])
    startentry.lock(
        s, duties.state or Path(), creating=0
    )  # a container that is gone gets none again
    _find(s, duties)
    s.do("pidfd_send_signal", Slot("target"), duties.stop_signal, 0, 0)
    startothers.until_dead(s, _GRACE)
    s.when("dead", 1, "ended")
    s.mark("deaf")
    s.do("pidfd_send_signal", Slot("target"), signal.SIGKILL, 0, 0)
    startothers.until_dead(s, _GONE)
    s.mark("ended")
    startothers.read_phase(s, duties, "not told")
    s.when("phase", startothers.STOPPED, "stopped")
    s.mark("not told")  # the monitor was killed: it has given nothing back
    s.go(FALL_BACK)
    s.mark("stopped")
    said = f"mktemplate: {duties.name}: stopped\n"
    s.do("write", 2, s.text(said), len(said))
    s.do("exit_group", 0)
    s.mark(HANDLER)
    execentry.fall_back(s)
    return executable(CODE, *s.table.data())


def _find(s: Scribe, duties: Duties) -> None:
    """Open init as slot `target`, the monitor as slot `pidfd`; go on at `deaf` where init would not hear a signal."""
    phase = startothers.read_phase(s, duties, FALL_BACK)
    s.when("phase", startothers.RUNNING, "it runs")
    s.go(FALL_BACK)
    s.mark("it runs")
    startothers.note(s, phase, _SPACES_TO_INIT, "init")
    startothers.note(s, phase, _SPACES_TO_MONITOR, "monitor")
    startothers.open_noted(s, "init", "no init")
    s.let("target", Slot("pidfd"))
    startothers.open_noted(s, "monitor", "no monitor")
    _hears(s, duties.stop_signal)
    s.mark("no init")
    s.mark("no monitor")
    s.go(FALL_BACK)
    s.mark("it hears")


def _hears(s: Scribe, number: int) -> None:
    """Go on at `it hears` where init has a handler for the signal, or has blocked it to read it elsewhere."""
    name = s.table.room(64)
    s.do(TEXT, name, s.table.place(pattern("/proc/%d/status")), Slot("init"))
    s.do("openat", m.AT_FDCWD, name, CLOEXEC, result="file")
    s.do("read", Slot("file"), s.buffer, BUFFER)
    place, bit = divmod(number - 1, _BITS)
    heard = [digit for digit in "0123456789abcdef" if int(digit, 16) >> bit & 1]
    for word, before in _HEARD.items():
        s.do(FIND, s.buffer, BUFFER - 64, int.from_bytes(word, "little"), result="mask")
        s.when("mask", 0, f"no {word!r}")
        s.do(ADD, Slot("mask"), before + _DIGITS - 1 - place, result="mask")
        s.do(LOAD, Slot("mask"), 0, result="digit", width=1)
        for digit in heard:
            s.when("digit", ord(digit), "it hears")
        s.mark(f"no {word!r}")
    s.go("deaf")
