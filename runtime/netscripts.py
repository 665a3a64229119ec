"""`lxc.net.N.script.up` and `.down`: programs of the user's that are run on the host as a nic comes and goes.

With LXC's arguments (name, `net`, `up` or `down`, type, link, host's end) and, as lxc.hook.version 1 has them, the
same as variables. `up` is run once the nic is inside, `down` before it is taken away.
"""

from __future__ import annotations

from runtime.errors import HostError
from runtime.settings import ContainerConfig, Nic
from valuetypes import dataclass

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_PATIENCE = 60.0  # seconds for a `down`: what holds it up would hold up the end of its container


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """One run of a script: plain values, so that it can be written down until the container ends."""

    command: str
    words: tuple[str, ...]
    variables: tuple[tuple[str, str], ...]


def script(config: ContainerConfig, nic: Nic, host_name: str, key: str, when: str) -> Script | None:
    """Return what is run for `nic` when it is `up` or goes `down`; None where nothing is."""
    command = nic.script_up if when == "up" else nic.script_down
    if not command:
        return None
    name = key.partition(".")[2] or key
    variables = [
        ("PATH", _PATH),
        ("LXC_NAME", name),
        ("LXC_CGNS_AWARE", "1"),
        ("LXC_ROOTFS_PATH", config.rootfs_path),
        ("LXC_HOOK_VERSION", str(int(config.hook_version))),
        ("LXC_HOOK_TYPE", when),
        ("LXC_HOOK_SECTION", "net"),
        ("LXC_NET_TYPE", nic.kind),
    ]
    if nic.kind in {"veth", "macvlan", "phys"}:
        variables.append(("LXC_NET_PARENT", nic.link))
    if nic.kind == "veth":
        variables.append(("LXC_NET_PEER", host_name))
    ends = (nic.link, host_name) if nic.kind == "veth" else (nic.link,)
    words = (name, "net", when, nic.kind, *(end for end in ends if end))
    return Script(command=command, words=words, variables=tuple(variables))


def run(one: Script) -> None:
    """Run an `up`; HostError (E_SCRIPT_FAILED) where it fails: the start fails then, as in LXC."""
    status = _run(one, None)
    if status:
        raise HostError("E_SCRIPT_FAILED", one.command, f"script.up ended with {status}")


def run_down(one: Script) -> None:
    """Run a `down`; the container ends whatever it says."""
    _run(one, _PATIENCE)


def _run(one: Script, timeout: float | None) -> int:
    import subprocess  # few nics have a script

    try:
        return subprocess.run(
            ["/bin/sh", "-c", f'exec {one.command} "$@"', "sh", *one.words],
            env=dict(one.variables),
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=timeout,
            check=False,
        ).returncode
    except subprocess.TimeoutExpired:
        return 124
