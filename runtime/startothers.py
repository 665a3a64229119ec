"""Other processes that a start program asks after: the monitor of an earlier start, the carrier of a user's network.

A file names each as JSON of runtime.state.Identity. A process is that one if its start time is, too (I-16).
"""

from __future__ import annotations

import signal
import struct
from pathlib import Path

from runtime.duties import Duties
from runtime.kernel import mount as m
from runtime.program import Call, Expect, Failure, Out, Slot
from runtime.records import BRANCH, CLEAR, FIELD, LOAD, STORE, Label
from runtime.scribe import BUFFER, CLOEXEC, POLLIN, STATX_BASIC, Scribe

_PHASE, _IDENTITY = b'"phase":', b'{"boot_i'
_LETTERS = 7  # of a phase
RUNNING, STOPPED = (int.from_bytes(phase, "little") for phase in (b"RUNNING", b"STOPPED"))
_PATIENCE = struct.pack("=2q", 10, 0)  # seconds in which what was killed must be dead
NOW = bytes(16)


def refuse_a_second(s: Scribe, duties: Duties) -> None:
    """Fail where the state file tells of a start whose monitor lives; its lock is held."""
    if duties.state is None or _PHASE.decode() not in duties.running:
        return
    phase = read_phase(s, duties, "alone")
    s.when("phase", STOPPED, "alone")
    find(s, phase, 5, "alone")
    until_dead(s, NOW)
    s.when("dead", 1, "alone")
    here = (Slot("pidfd"), b"\0", m.AT_EMPTY_PATH, STATX_BASIC, Out(256))
    running = Failure("E_RUNNING", duties.name, "is running already")
    blocks = Expect(4, 4, 0)  # stx_blksize: whatever is there has one
    s.table.calls([Call(name="statx", args=here, expect=(blocks,), unexpected=running)])
    s.mark("alone")


def read_phase(s: Scribe, duties: Duties, otherwise: str) -> int:
    """Read the state file; put seven letters of its phase into slot `phase`, and return the address of that.

    Go on at `otherwise` where it is not there, or nobody like us has written it.
    """
    before = duties.running.partition(_PHASE.decode())[0].replace("%%", "%")
    _read(s, duties.state or Path(), otherwise, len(before), _PHASE)
    phase = s.buffer + len(before) + len('"phase": "')
    s.do(LOAD, phase, 0, result="phase", width=_LETTERS)
    return phase


def kill(s: Scribe, file: Path) -> None:
    """Kill the process that `file` names, wait until it is dead, and remove the file."""
    _read(s, file, "no carrier", 0, _IDENTITY)
    find(s, s.buffer, 3, "carrier is gone")
    s.do("pidfd_send_signal", Slot("pidfd"), signal.SIGKILL, 0, 0)
    until_dead(s, _PATIENCE)
    s.close("pidfd")
    s.mark("carrier is gone")
    s.do("unlinkat", m.AT_FDCWD, s.text(str(file)), 0)
    s.mark("no carrier")


def _read(s: Scribe, file: Path, otherwise: str, offset: int, word: bytes) -> None:
    """Read `file` into the buffer; go on at `otherwise` where it is not there, or `word` does not stand at `offset`."""
    s.do("openat", m.AT_FDCWD, s.text(str(file)), CLOEXEC, result="file")
    s.when("file", -1, otherwise)
    s.do(CLEAR, s.buffer, BUFFER)
    s.do("read", Slot("file"), s.buffer, BUFFER)
    s.close("file")
    s.do(LOAD, s.buffer + offset, 0, result="word", width=len(word))
    s.when("word", int.from_bytes(word, "little"), f"not {otherwise}")
    s.go(otherwise)
    s.mark(f"not {otherwise}")


def find(s: Scribe, said: int, spaces: int, gone: str) -> None:
    """Open the process whose pid stands at `said` behind so many spaces into slot `pidfd`; else go on at `gone`."""
    note(s, said, spaces, "who")
    open_noted(s, "who", gone)


def note(s: Scribe, said: int, spaces: int, who: str) -> None:
    """Put the pid that stands at `said` behind so many spaces into slot `who`; its start time is noted beside it."""
    s.do(FIELD, said, spaces, result=who)
    s.do(FIELD, said, spaces + 2, result=f"{who} since")


def open_noted(s: Scribe, who: str, gone: str) -> None:
    """Open the process that was noted as `who` into slot `pidfd`; else go on at `gone`. The buffer is used."""
    s.do("pidfd_open", Slot(who), 0, result="pidfd")
    s.when("pidfd", -1, gone)
    s.starttime("/proc/%d/stat", "now", Slot(who))
    s.do(BRANCH, Slot("now"), Slot(f"{who} since"), Label(f"it is not {gone}"))
    s.close("pidfd")
    s.go(gone)
    s.mark(f"it is not {gone}")


def until_dead(s: Scribe, patience: bytes) -> None:
    """Wait until the process of slot `pidfd` is dead, at most so long; slot `dead` is 1 where it is."""
    polled = s.table.room(8)
    s.do(STORE, polled, Slot("pidfd"), width=4)
    s.do(STORE, polled + 4, POLLIN, width=2)
    s.do("ppoll", polled, 1, s.table.place(patience), 0, 8, result="dead")
