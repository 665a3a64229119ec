"""A normal user's network: a process of the user's own carries it between the container's namespace and the host.

pasta(1), else slirp4netns(1); found by absolute path, run without the host's loopback in reach. It is killed by a
pidfd when the container ends, and ends by itself, within about a second, when its namespace has gone.
"""

from __future__ import annotations

import array
import json
import os
import select
import signal
import socket
from collections.abc import Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

from runtime import etcfiles, state
from runtime.bundle import Port, replace_file
from runtime.config import ContainerConfig
from runtime.errors import HostError, LaunchError, ResourceError
from runtime.kernel import namespace as ns
from runtime.monitor import Reached
from runtime.state import Identity
from valuetypes import asdict

PASTA, SLIRP = "/usr/bin/pasta", "/usr/bin/slirp4netns"
_TUN = "/dev/net/tun"
_NIC = "eth0"
_FORWARDER = "169.254.1.53"  # where pasta answers for a name server on the host's loopback
_SLIRP_DNS, _SLIRP_IP = "10.0.2.3", "10.0.2.100"  # slirp4netns(1)
_PATIENCE = 10.0  # seconds until it must be ready


def is_wanted(config: ContainerConfig, ports: Sequence[Port]) -> bool:
    """Whether `config` has a nic that leads out: for a user, one like LXC's default; HostError for another kind."""
    for nic in config.nics:
        inner = nic.kind == "veth" and nic.link.startswith("mkti")
        if nic.kind not in {"empty", "none", "veth"} or inner or nic.has_vlans:
            what = "an internal bridge" if inner else "VLANs" if nic.has_vlans else nic.kind
            raise HostError(
                "E_KERNEL_FEATURE",
                f"lxc.net.{nic.index}",
                f"only root can attach {what}",
                hints=("as a user: --network bridge, which pasta carries, or --network none",),
            )
    wanted = any(nic.kind == "veth" for nic in config.nics)
    if ports and not wanted:
        raise HostError("E_KERNEL_FEATURE", "--publish", "needs a network that leads out")
    return wanted


def connect(record: Path, init: int, ports: Sequence[Port]) -> Reached:
    """Carry the network of the process `init`; who does so is written to `record`, for `release`.

    HostError (E_KERNEL_FEATURE): no program for it, no /dev/net/tun. ResourceError (E_LIMIT): a port is taken.
    """
    carrier = check()
    if carrier == PASTA:
        return _pasta(record, init, ports)
    return _slirp(record, init, ports)


def check() -> str:
    """Return the program that can carry it here; HostError where there is none, or it could not work."""
    carrier = next((path for path in (PASTA, SLIRP) if os.access(path, os.X_OK)), "")
    if not carrier:
        raise HostError(
            "E_KERNEL_FEATURE",
            PASTA,
            "is not installed; a user's network needs it",
            hints=("apt install passt", "or use --network none"),
        )
    try:
        os.close(os.open(_TUN, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        mend = "modprobe tun" if isinstance(error, FileNotFoundError) else f"chmod 666 {_TUN}"
        raise HostError(
            "E_KERNEL_FEATURE",
            _TUN,
            f"a user's network needs it: {error.strerror}",
            hints=(f"as root: {mend}", "or use --network none"),
        ) from None
    return carrier


def release(record: Path) -> None:
    """Kill what `record` names, and return when it is dead: its ports are free then. Idempotent.

    So is done with a pasta of a start that was killed before it had recorded it.
    """
    for carrier in filter(None, (_recorded(record), _unrecorded(_pid_file(record)))):
        pidfd = carrier.open()
        if pidfd is not None:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            select.select([pidfd], [], [], _PATIENCE)
            os.close(pidfd)
    for file in (record, _pid_file(record)):
        file.unlink(missing_ok=True)


def record_of(path: Path, name: str) -> Path:
    """Return the file that names the process which carries the network of the container NAME below PATH."""
    return state.folder(path) / f"{name}.net"


def has_left(record: Path) -> bool:
    """Whether there is anything to release."""
    return record.exists() or _pid_file(record).exists()


def _pid_file(record: Path) -> Path:
    return record.with_suffix(".pasta")


def _note(record: Path, carrier: Identity) -> None:
    """Write down who carries it, for us and for a start program, which reads it, too (startothers.py)."""
    replace_file(record, json.dumps(asdict(carrier)).encode(), durable=False)


def _recorded(record: Path) -> Identity | None:
    try:
        return Identity(**json.loads(record.read_bytes()))
    except (FileNotFoundError, ValueError, TypeError):
        return None


def _unrecorded(pid_file: Path) -> Identity | None:
    """Return the pasta that was told to write `pid_file`, if it is still that process."""
    try:
        carrier = Identity.of(int(pid_file.read_text()))
        with open(f"/proc/{carrier.pid}/cmdline", "rb") as file:
            words = file.read().split(b"\0")
    except (OSError, ValueError):
        return None
    return carrier if os.fsencode(pid_file) in words else None


def addresses(pid: int) -> tuple[str, ...]:
    """Return the IPv4 addresses of the network namespace of `pid`, as /proc/PID/net/fib_trie has them.

    LaunchError (E_INIT_DIED) where there is no such process.
    """
    try:
        with open(f"/proc/{pid}/net/fib_trie", encoding="ascii") as file:
            lines = [line.split() for line in file.read().split("\n")]
    except OSError as error:  # it was killed, and its namespace is gone
        raise LaunchError(
            "E_INIT_DIED", f"process {pid}", f"its network: {error.strerror}"
        ) from None
    found = [
        before[1]
        for before, line in pairwise(lines)
        if line[:3] == ["/32", "host", "LOCAL"] and before[0] == "|--"
    ]
    return tuple(dict.fromkeys(ip for ip in found if not ip.startswith("127.")))


def hand_over(pid: str, port: str) -> None:
    """Connect to `port` in the network namespace of `pid`; give the socket to ssh (ssh_config(5), ProxyUseFdpass)."""
    pidfd = os.pidfd_open(int(pid))
    ns.setns(pidfd, ns.CLONE_NEWUSER | ns.CLONE_NEWNET)
    with socket.create_connection(("127.0.0.1", int(port))) as reached:
        out = socket.socket(fileno=os.dup(1))
        out.sendmsg(
            [b"\0"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [reached.fileno()]))]
        )


def _pasta(record: Path, init: int, ports: Sequence[Port]) -> Reached:
    import subprocess  # here: few starts need it

    server = "" if etcfiles.resolvers() else _FORWARDER
    pid_file = _pid_file(record)
    argv = [PASTA, "--config-net", "--quiet", "--no-map-gw", "--ns-ifname", _NIC]
    argv += [
        "-T",
        "none",
        "-U",
        "none",
        *_forwards("tcp", "-t", ports),
        *_forwards("udp", "-u", ports),
    ]
    if server:
        argv += ["--dns-forward", server, "--dns-host", _host_server()]
    argv += ["--pid", str(pid_file), str(init)]
    try:
        done = subprocess.run(
            argv, env={}, cwd="/", stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE, timeout=_PATIENCE, check=False,
        )  # fmt: skip
        if done.returncode:
            raise _refused(PASTA, done.stderr.decode(errors="replace"), ports)
        carrier = Identity.of(
            int(pid_file.read_text())
        )  # it went to the background when all was ready
    except subprocess.TimeoutExpired:
        raise LaunchError("E_INIT_DIED", PASTA, f"is not ready after {_PATIENCE:g} s") from None
    finally:
        pid_file.unlink(missing_ok=True)
    _note(record, carrier)
    return Reached(ips=addresses(init), nameserver=server)


def _forwards(proto: str, option: str, ports: Sequence[Port]) -> list[str]:
    """Return pasta's options for the published ports; `%lo` is localhost in both families (feasibility A12)."""
    words = [
        f"{'%lo' if port.address == '127.0.0.1' else port.address}/{port.host}:{port.container}"
        for port in ports
        if port.proto == proto
    ]
    return [word for one in words or ["none"] for word in (option, one)]


def _host_server() -> str:
    """Return the first name server of the host, which is on its loopback."""
    with suppress(OSError), open("/etc/resolv.conf", encoding="utf-8", errors="replace") as file:
        for line in file:
            words = line.split()
            if len(words) > 1 and words[0] == "nameserver":
                return words[1]
    return "127.0.0.1"


def _refused(program: str, said: str, ports: Sequence[Port]) -> HostError | ResourceError:
    """Return what the words of `program` mean."""
    lines = [line for line in said.split("\n") if line]
    shown = next((one for one in ports if f"{one.host}" in said), None)
    subject = f"{shown.where}/{shown.proto}" if shown else program
    if "in use" in said:
        return ResourceError("E_LIMIT", subject, "a process of this host listens there already")
    if shown and shown.host < 1024 and "ermission denied" in said:
        hint = f"as root: sysctl net.ipv4.ip_unprivileged_port_start={shown.host}"
        return HostError(
            "E_KERNEL_FEATURE", subject, "a user may not publish a port below 1024", hints=(hint,)
        )
    return HostError("E_KERNEL_FEATURE", program, lines[-1] if lines else "it failed")


def _slirp(record: Path, init: int, ports: Sequence[Port]) -> Reached:
    import subprocess  # here: few starts need it

    control = record.with_suffix(".slirp")
    ready, tell = os.pipe2(os.O_CLOEXEC)
    argv = [SLIRP, "--configure", "--mtu=65520", "--disable-host-loopback", f"--ready-fd={tell}"]
    argv += [f"--api-socket={control}", str(init), _NIC]
    carrier = subprocess.Popen(
        argv, env={}, cwd="/", stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL, pass_fds=(tell,), start_new_session=True,
    )  # fmt: skip
    os.close(tell)
    _note(record, Identity.of(carrier.pid))
    try:
        if not (select.select([ready], [], [], _PATIENCE)[0] and os.read(ready, 1) == b"1"):
            raise HostError("E_KERNEL_FEATURE", SLIRP, "it did not get ready")
        for port in ports:
            _slirp_forward(control, port)
    except BaseException:
        release(record)
        carrier.wait()
        raise
    finally:
        os.close(ready)
        control.unlink(missing_ok=True)
    return Reached(ips=(_SLIRP_IP,), nameserver="" if etcfiles.resolvers() else _SLIRP_DNS)


def _slirp_forward(control: Path, port: Port) -> None:
    wanted = {
        "proto": port.proto,
        "host_addr": port.address,
        "host_port": port.host,
        "guest_port": port.container,
    }
    with socket.socket(socket.AF_UNIX) as api:
        api.connect(str(control))
        api.sendall(json.dumps({"execute": "add_hostfwd", "arguments": wanted}).encode())
        api.shutdown(socket.SHUT_WR)
        answer = json.loads(api.recv(65536) or b"{}")
    if "error" in answer:
        said = str(answer["error"].get("desc", ""))
        subject = f"{port.where}/{port.proto}"
        raise ResourceError("E_LIMIT", subject, f"cannot be published: {said}")
