"""python3-lxc's Container. What fails answers False, None or nothing, as there; the log mktemplate.lxc says why."""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Unpack

from mktemplate.cli.arguments import container_name
from mktemplate.cli.parsing import parse
from mktemplate.console import Console
from mktemplate.life import copies, phases, renaming, snapshots
from mktemplate.lxc import inside
from mktemplate.lxc.configured import Configured, refused
from runtime import config as configs
from runtime import controlfile, halt
from runtime.config import ContainerConfig
from runtime.container import Container as Running
from runtime.errors import StateError
from runtime.kernel import netlink
from runtime.kernel.netlink import Netlink

_KEEPNAME, _KEEPMACADDR = 1, 2  # LXC_CLONE_*
_OPTIONS = {"--dist": "--distro"}  # as LXC's template `download` spells it
# What the two versions of the memory controller call the same thing.
_TWINS = (
    ("memory.max", "memory.limit_in_bytes"),
    ("memory.current", "memory.usage_in_bytes"),
    ("memory.peak", "memory.max_usage_in_bytes"),
)


class Container(Configured):
    """A container by name, and its configuration in memory."""

    @property
    def init_pid(self) -> int:
        """The host's number of its first process, -1 while it does not run."""
        return self._found.pid or -1

    @property
    def running(self) -> bool:
        """Whether it runs, also while it is frozen."""
        return self._found.pid is not None

    @property
    def state(self) -> str:
        """STOPPED, STARTING, RUNNING, FREEZING, FROZEN, STOPPING or ABORTING."""
        return self._found.state()

    # Making and removing

    @refused(False)
    def create(
        self,
        template: str | None = None,
        flags: int = 0,
        args: Sequence[str] | Mapping[str, str] = (),
        bdevtype: str | None = None,
        fssize: int = 0,
    ) -> bool:
        """Make it of a template of ours, `args` being the options of `mktemplate create`.

        What was set before stands in its configuration, too. `flags`, `bdevtype` and `fssize` change nothing.
        """
        if template is None:
            return self.save_config()
        words = args
        if isinstance(args, Mapping):
            words = [str(word) for key, value in args.items() for word in (f"--{key}", value)]
        words = [_OPTIONS.get(word, word) for word in words]
        request = parse(["create", template, self.name, f"--path={self._path}", *words])
        before = self._settings.pairs()
        self._make_room()
        phases.create(request, Console(quiet=True))
        self.load_config()
        for key, value in before:
            self._settings.take(key, value)
        return self.save_config() if before else True

    def _make_room(self) -> None:
        """Take away what save_config kept before there was a container; anything else stays, and is in the way."""
        directory = self._found.directory
        if self.defined and os.listdir(directory) == ["config"]:
            os.unlink(self.config_file_name)
            directory.rmdir()

    @refused(False)
    def destroy(self) -> bool:
        """Remove it for good; not while it runs."""
        self._found.destroy()
        self.clear_config()
        return True

    @refused(False)
    def clone(  # noqa: PLR0913, PLR0917  # python3-lxc's signature
        self,
        newname: str,
        config_path: str | None = None,
        flags: int = 0,
        bdevtype: str | None = None,
        bdevdata: str | None = None,
        newsize: int = 0,
        hookargs: Sequence[str] = (),
    ) -> Container:
        """Make another like it, stopped, in the same place; layers are shared whatever `flags` and the rest say."""
        if config_path and Path(config_path) != self._path:
            raise StateError("E_USAGE", newname, f"is made beside {self.name}, in {self._path}")
        copies.make(self._found, container_name(newname))
        made = Container(newname, str(self._path))
        if flags & _KEEPNAME:
            made.set_config_item("lxc.uts.name", self.get_config_item("lxc.uts.name"))
        if flags & _KEEPMACADDR:
            for index, nic in enumerate(self.network):
                made.set_config_item(f"lxc.net.{index}.hwaddr", nic.hwaddr)
        if flags & (_KEEPNAME | _KEEPMACADDR):
            made.save_config()
        return made

    @refused(False)
    def rename(self, new_name: str) -> Container:
        """Give it, stopped, another name; return it under that name."""
        renaming.rename(self._found, container_name(new_name))
        return Container(new_name, str(self._path))

    # Its life

    @refused(False)
    def start(
        self,
        useinit: bool = False,
        daemonize: bool = True,
        close_fds: bool = False,
        cmd: Sequence[str] = (),
    ) -> bool:
        """Start it as its configuration in memory says, saved or not; with `cmd` instead of its own init.

        Not daemonized it has our standard streams, and this returns when it has ended.
        """
        found = self._found
        if cmd or not self._is_saved():
            own = [("lxc.init.cmd", shlex.join(cmd))] if cmd else []
            found = _AsSet(self._found, self._settings.text() + configs.render(own))
        begun = found.start(foreground=not daemonize)
        if not daemonize:
            os.waitpid(begun.monitor, 0)
        return True

    @refused(False)
    def stop(self) -> bool:
        """Kill it; one that does not run is stopped already."""
        if self.running:
            phases.stop(self._found, 0)
        return True

    @refused(False)
    def shutdown(self, timeout: int = -1) -> bool:
        """Ask its init to end it; return whether it has ended `timeout` seconds later, -1 for no limit."""
        if not self.running:
            return True
        self.unfreeze()
        pid = self.init_pid
        self._found.kill(self._found.config.signal_halt or halt.default_halt(pid))
        return timeout == 0 or self.wait("STOPPED", timeout)

    @refused(False)
    def reboot(self) -> bool:
        """Stop it and start it again; not where it does not run."""
        if not self.running:
            return False
        phases.restart(self._found)
        return True

    @refused(False)
    def freeze(self) -> bool:
        """Suspend every process of it."""
        self._found.freeze()
        return True

    @refused(False)
    def unfreeze(self) -> bool:
        """Let it go on."""
        if self.state in {"FROZEN", "FREEZING"}:
            self._found.unfreeze()
        return True

    @refused(False)
    def wait(self, state: str, timeout: int = -1) -> bool:
        """Wait until it is in `state`, at most `timeout` seconds, -1 for no limit; return whether it is."""
        return self._found.wait(state.upper(), None if timeout < 0 else timeout)

    # Inside

    @refused(-1)
    def attach(
        self,
        run: Callable[..., object],
        payload: object = None,
        **how: Unpack[inside.Options],
    ) -> int:
        """Call `run(payload)` inside, in a process of ours; return its pid, or -1."""
        return inside.attach(self._found, run, payload, inside.Attachment(**how))

    def attach_wait(
        self,
        run: Callable[..., object],
        payload: object = None,
        **how: Unpack[inside.Options],
    ) -> int:
        """Call `run(payload)` inside; return the status as waitpid(2) encodes it, -1 where it failed."""
        pid = self.attach(run, payload, **how)
        if pid < 0:
            return -1
        status = os.waitpid(pid, 0)[1]
        return -1 if os.WIFEXITED(status) and os.WEXITSTATUS(status) == inside.FAILED else status

    def get_interfaces(self) -> tuple[str, ...]:
        """Return the names of the network interfaces inside."""
        return inside.interfaces(self._found)

    def get_ips(
        self,
        interface: str | None = None,
        family: str | None = None,
        scope: int | None = None,
        timeout: int = 0,
    ) -> tuple[str, ...]:
        """Return its addresses, but for those of lo and, without a `scope`, of a link.

        Where it has none yet wait for one, `timeout` seconds, by default those in LXC_GETIP_TIMEOUT.
        """
        end = time.monotonic() + int(os.environ.get("LXC_GETIP_TIMEOUT", timeout))
        while True:
            found = self._addresses(interface, family, scope)
            if found or time.monotonic() >= end:
                return found
            time.sleep(0.05)

    @refused(())
    def _addresses(
        self, interface: str | None, family: str | None, scope: int | None
    ) -> tuple[str, ...]:
        return inside.addresses(self._found, interface, family, scope) if self.running else ()

    @refused(False)
    def console(
        self,
        ttynum: int = -1,
        stdinfd: int = 0,
        stdoutfd: int = 1,
        stderrfd: int = 2,
        escape: int = 1,
    ) -> bool:
        """Be at its console with our terminal, until Ctrl-`escape` and q are typed (1 is Ctrl-a)."""
        if not self.running:
            return False
        from runtime import attach

        log = self._found.bundle.log
        attach.at_console(self._found, log, bytes([escape]), lambda: None)
        return True

    @refused(False)
    def console_getfd(self, ttynum: int = -1) -> int:
        """Return a descriptor of its console's master; the caller closes it."""
        if not self.running:
            return False
        from runtime import attach

        with attach.console_master(self._found) as (descriptor, _):
            return os.dup(descriptor)

    # What it is given while it runs

    def get_cgroup_item(self, key: str) -> str:
        """Return what its control group's file `key` says. KeyError where there is none, or it does not run."""
        try:
            return controlfile.read(self._control_file(key)).rstrip("\n")
        except (OSError, StateError):
            raise KeyError("Invalid cgroup entry") from None

    @refused(False)
    def set_cgroup_item(self, key: str, value: str) -> bool:
        """Write `value` to its control group's file `key`."""
        controlfile.write(self._control_file(key), value)
        return True

    def _control_file(self, key: str) -> str:
        """Return the path of a control file; what only the other version calls `key` counts, too."""
        group = self._found.cgroup(self._found.running())
        same = next((pair for pair in _TWINS if key in pair), (key,))
        paths = [
            f"{one.path}/{name}" for name in dict.fromkeys((key, *same)) for one in group.groups
        ]
        return next((path for path in paths if os.path.exists(path)), paths[0] if paths else key)

    @refused(False)
    def add_device_net(self, name: str, destname: str | None = None) -> bool:
        """Hand the host's network interface `name` over, as `destname` inside."""
        return self.attach_interface(name, destname)

    @refused(False)
    def attach_interface(self, src_ifname: str, dst_ifname: str | None = None) -> bool:
        """Hand the host's network interface over, under another name inside where one is given."""
        with inside.network(self._found) as netns, Netlink() as host:
            return _move(host, src_ifname, dst_ifname or src_ifname, netns)

    @refused(False)
    def detach_interface(self, ifname: str) -> bool:
        """Take the network interface `ifname` back to the host."""
        own = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            with inside.network(self._found) as netns, Netlink.inside(netns) as there:
                return _move(there, ifname, ifname, own)
        finally:
            os.close(own)

    @refused(False)
    def add_device_node(self, src_path: str, dest_path: str | None = None) -> bool:
        """Answer False: a container whose root is nobody outside opens no node that is made now."""
        raise StateError("E_USAGE", src_path, "is given at create: {'device': …}, or --device")

    @refused(False)
    def remove_device_node(self, src_path: str, dest_path: str | None = None) -> bool:
        """Answer False, as add_device_node does."""
        raise StateError("E_USAGE", src_path, "was given at create, and stays")

    # Snapshots

    @refused(False)
    def snapshot(self, comment_path: str | None = None) -> str:
        """Keep it as it is, stopped, with the text of the file `comment_path`; return its name, snap0 and up."""
        comment = Path(comment_path).read_bytes() if comment_path else b""
        if self.running:
            raise StateError("E_RUNNING", self.name, "is running")
        made = snapshots.create(self._found, "")
        if comment:
            (made.path / "comment").write_bytes(comment)
        return made.name

    def snapshot_list(self) -> tuple[tuple[str, str, str, str], ...]:
        """Return (name, path of its comment, time, where it lies) of each. KeyError where there is no container."""
        if not self.defined:
            raise KeyError("Unable to list snapshots")
        return tuple(
            (
                one.name,
                str(one.path / "comment") if (one.path / "comment").exists() else "",
                one.created.replace("-", ":").replace("T", " ").rstrip("Z"),
                str(one.path.parent),
            )
            for one in snapshots.found(self._found)
        )

    @refused(False)
    def snapshot_restore(self, name: str, newname: str | None = None) -> bool:
        """Make it, stopped, what it was, or another container, `newname`, what this was."""
        if newname is None or newname == self.name:
            snapshots.restore(self._found, name)
            return self.load_config()
        copies.make(self._found, container_name(newname))
        snapshots.restore_into(self._found, name, Running(self._path, newname))
        return True

    @refused(False)
    def snapshot_destroy(self, name: str) -> bool:
        """Remove a snapshot."""
        snapshots.delete(self._found, name)
        return True


class _AsSet(Running):
    """A container that starts as a text in memory says."""

    def __init__(self, found: Running, text: str) -> None:
        super().__init__(found.path, found.name)
        self._text = text

    @property
    def config(self) -> ContainerConfig:
        """What the text says."""
        return configs.parse(self._text, str(self.directory / "config"))

    def start_program(self) -> None:
        """Return None: a start program says what is kept."""


def _move(host: Netlink, name: str, new: str, netns: int) -> bool:
    """Move an interface of `host`'s namespace to the one open as `netns`."""
    link = host.link(name)
    if link is None:
        raise StateError("E_NOTFOUND", name, "there is no such network interface")
    host.change(
        link.index,
        netlink.number(netlink.IFLA_NET_NS_FD, netns) + netlink.text(netlink.IFLA_IFNAME, new),
    )
    return True
