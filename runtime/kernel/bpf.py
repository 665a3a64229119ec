"""bpf(2), as far as a cgroup's device filter needs it. How the program is made is `runtime.devices`' business."""

from __future__ import annotations

import os
import struct

from runtime.kernel import libc

_PROG_LOAD, _PROG_ATTACH = 5, 8
_TYPE_CGROUP_DEVICE = 15
_ATTACH_CGROUP_DEVICE = 6
_ALLOW_MULTI = 2  # beside a program of systemd's further up


def attach_device_filter(directory: int, program: bytes) -> None:
    """Let `program`, eBPF instructions, decide on devices for the cgroup whose folder is open as `directory`.

    The kernel keeps it for as long as the cgroup lives.
    """
    license_ = b"GPL\0"
    load = struct.pack(
        "=IIQQIIQII16s",
        _TYPE_CGROUP_DEVICE,
        len(program) // 8,
        libc.address(program),
        libc.address(license_),
        0,
        0,
        0,
        0,
        0,
        b"mktemplate_dev\0",
    )
    descriptor = libc.syscall("bpf", _PROG_LOAD, load, len(load))
    try:
        attach = struct.pack("=IIII", directory, descriptor, _ATTACH_CGROUP_DEVICE, _ALLOW_MULTI)
        libc.syscall("bpf", _PROG_ATTACH, attach, len(attach))
    finally:
        os.close(descriptor)
