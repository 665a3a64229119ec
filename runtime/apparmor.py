"""AppArmor: the profile of lxc.apparmor.profile, which init and whoever joins it take on when they execute.

It is asked for before, by a word in /proc/self/attr/apparmor/exec (aa_change_onexec(2)). `generated` is one profile
of ours for all containers that say so: behind namespaces, masks and the filter it forbids once more what they forbid.
It is loaded when the first of them starts. Where the kernel has no AppArmor none is taken on, and that is said.
"""

from __future__ import annotations

import os
from pathlib import Path

from runtime.config import ContainerConfig
from runtime.errors import HostError
from runtime.kernel import mount as m
from runtime.program import Argument, Call, Failure, Slot
from runtime.steps import c

KEY = "lxc.apparmor.profile"
GENERATED = "mktemplate"
RULES = f"""\
profile {GENERATED} flags=(attach_disconnected,mediate_deleted) {{
  capability,
  network,
  file,
  mount,
  umount,
  pivot_root,
  unix,
  dbus,
  signal (receive) peer=unconfined,
  signal (send, receive) peer={GENERATED},
  ptrace (readby, tracedby) peer=unconfined,
  ptrace peer={GENERATED},

  deny mount fstype=debugfs,
  deny mount fstype=tracefs,
  deny mount fstype=securityfs,
  deny mount fstype=efivarfs,
  deny mount fstype=configfs,
  deny /proc/kcore rwklx,
  deny /proc/sysrq-trigger rwklx,
  deny /proc/sys/kernel/core_pattern wklx,
  deny /proc/sys/kernel/modprobe wklx,
  deny /proc/sys/kernel/security/** wklx,
  deny /sys/firmware/** rwklx,
  deny /sys/kernel/debug/** rwklx,
  deny /sys/kernel/tracing/** rwklx,
  deny /sys/kernel/security/** rwklx,
}}
"""
_NONE = ("", "unchanged", "unconfined")
_ENABLED = Path("/sys/module/apparmor/parameters/enabled")
_LOADED = Path("/sys/kernel/security/apparmor/profiles")
_PARSER = "/usr/sbin/apparmor_parser"


def profile(config: ContainerConfig) -> str:
    """Return the profile that programs of the container take on; nothing: they keep their starter's."""
    if _lacking(config):
        return ""
    return GENERATED if config.apparmor_profile == "generated" else config.apparmor_profile


def notes(config: ContainerConfig) -> tuple[str, ...]:
    """Return what is not applied, and why."""
    why = config.apparmor_profile not in _NONE and _lacking(config)
    return (f"{KEY}: not applied: {why}",) if why else ()


def _lacking(config: ContainerConfig) -> str:
    """Return why no profile is taken on, nothing where one is."""
    if config.apparmor_profile in _NONE:
        return "none is asked for"
    try:
        enabled = _ENABLED.read_bytes() == b"Y\n"
    except OSError:
        enabled = False
    if not enabled:
        return "this kernel has no AppArmor"
    if config.apparmor_profile == "generated" and os.geteuid() != 0:
        return "only root may load a profile; name one that is loaded"
    return ""


def load(config: ContainerConfig) -> None:
    """Give the kernel our own profile where `config` wants it and it is not there; HostError where that fails."""
    if config.apparmor_profile != "generated" or not profile(config) or _is_loaded():
        return
    import subprocess  # once after a boot

    try:
        done = subprocess.run(
            [_PARSER, "--replace", "--skip-cache", "--quiet"],
            input=RULES.encode(),
            capture_output=True,
            env={"LC_ALL": "C"},
            cwd="/",
            timeout=60,
            check=False,
        )
    except FileNotFoundError:
        raise HostError(
            "E_KERNEL_FEATURE",
            KEY,
            "generated: apparmor_parser is not installed",
            hints=("apt install apparmor", "or set it to unconfined"),
        ) from None
    if done.returncode:
        raise HostError(
            "E_KERNEL_FEATURE",
            KEY,
            f"generated: the kernel refuses it: {done.stderr.decode(errors='replace').strip()}",
        )


def _is_loaded() -> bool:
    try:
        with _LOADED.open(encoding="utf-8") as loaded:
            return any(line.startswith(f"{GENERATED} (") for line in loaded)
    except OSError:
        return False  # loading it once more changes nothing


def prepare(config: ContainerConfig, proc: Argument = m.AT_FDCWD) -> tuple[Call, ...]:
    """Open the way to ask for the profile, in the process that will execute: by `proc`, the host's, or /proc."""
    if not profile(config):
        return ()
    path = "self/attr/apparmor/exec"
    return (
        Call(
            name="openat",
            args=(
                proc,
                c(path if isinstance(proc, Slot) else f"/proc/{path}"),
                os.O_WRONLY | os.O_CLOEXEC,
            ),
            result="apparmor",
            failure=Failure("E_KERNEL_FEATURE", KEY),
        ),
    )


def take_on(config: ContainerConfig) -> tuple[Call, ...]:
    """Ask for the profile at the next execve(2), by what `prepare` has opened."""
    name = profile(config)
    if not name:
        return ()
    word = f"exec {name}".encode()
    return (
        Call(
            name="write",
            args=(Slot("apparmor"), word, len(word)),
            failure=Failure(
                "E_CONFIG_VALUE",
                KEY,
                f"{name}: no profile of this name is loaded",
                hints=("apparmor_parser --replace FILE loads one",),
            ),
        ),
    )
