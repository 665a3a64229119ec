"""Say what `lxc` is and answers without a container running, as one JSON object: `python surface.py MODULE FOLDER`.

Run with python3-lxc by the interpreter that has it, and with ours: what differs is told by comparing the two.
"""

from __future__ import annotations

import importlib
import inspect
import json
import sys
from collections.abc import Callable
from typing import Any

lxc = importlib.import_module(sys.argv[1])
folder = sys.argv[2]
found: dict[str, Any] = {}

# Those of 5.0 that are Python's own modules.
OTHERS = {"os", "subprocess", "time", "annotations"}


def says(name: str, ask: Callable[[], Any]) -> None:
    """Keep what `ask` answers, or the type of what it raises."""
    try:
        answer = ask()
        found[name] = (
            answer if isinstance(answer, str | int | list | tuple | None) else repr(type(answer))
        )
    except Exception as error:  # noqa: BLE001  # whatever it is, its type is what is compared
        found[name] = f"raises {type(error).__name__}"


public = [
    name
    for name in dir(lxc)
    if not name.startswith("_") and name not in OTHERS and not inspect.ismodule(getattr(lxc, name))
]
found["module"] = public
found["constants"] = {
    name: value for name in public if isinstance(value := getattr(lxc, name), int)
}
found["container"] = [name for name in dir(lxc.Container) if not name.startswith("_")]
for name in found["container"]:
    member = getattr(lxc.Container, name)
    if inspect.isfunction(member):
        words = inspect.signature(member).parameters.values()
        found[f"arguments of {name}"] = [
            one.name if one.default is one.empty else f"{one.name}={one.default!r}" for one in words
        ]

c = lxc.Container("none", folder)
for ask in (
    *("name", "defined", "running", "state", "init_pid", "controllable", "config_file_name"),
    *("get_config_path()", "get_ips()", "get_interfaces()", "start()", "stop()", "shutdown(1)"),
    *("freeze()", "wait('RUNNING', 0)", "wait('STOPPED', 1)", "wait('stopped', 1)"),
    *("snapshot_list()", "snapshot()", "rename('other')", "clone('other')", "destroy()"),
    *("get_running_config_item('lxc.uts.name')", "reboot()", "console()", "console_getfd()"),
    *("get_cgroup_item('memory.max')", "set_cgroup_item('memory.max', '1')"),
    *("add_device_node('/dev/null')", "add_device_net('nothere9')", "detach_interface('nothere9')"),
    *("attach_interface('nothere9', 'x')", "clear_config_item('lxc.nonsense')", "load_config()"),
    *("get_config_item('lxc.uts.name')", "get_config_item('lxc.nonsense')", "clear_config()"),
    *("get_keys('lxc.net')", "get_keys('lxc.net.7')", "get_keys('lxc.nonsense')", "len(c.network)"),
):
    says(ask, lambda ask=ask: eval(f"c.{ask}" if not ask.startswith("len") else ask))
says("lists nothing", lambda: lxc.list_containers(config_path="/nothere"))
for name in ("amd64", "x86", b"i686", "vax"):
    says(f"personality {name!r}", lambda name=name: lxc.arch_to_personality(name))
says("global nonsense", lambda: lxc.get_global_config_item("nonsense"))
says("too long a name", lambda: lxc.Container("x" * 300))

c.set_config_item("lxc.uts.name", "none")
found["keys"] = sorted(c.get_keys())
for key in found["keys"]:
    says(f"unset {key}", lambda key=key: c.get_config_item(key))
for key, values in {
    "lxc.cap.drop": ["sys_admin mknod", "audit_read"],
    "lxc.cgroup2.memory.max": ["1M", "2M"],
    "lxc.cgroup2.devices.allow": ["a", "c 1:3 rw"],
    "lxc.prlimit.nofile": ["10:20"],
    "lxc.sysctl.net.ipv4.ip_forward": ["1"],
    "lxc.proc.oom_score_adj": ["100"],
    "lxc.idmap": ["u 0 100000 65536", "g 0 100000 65536"],
    "lxc.mount.entry": ["proc proc proc defaults 0 0"],
    "lxc.mount.auto": ["proc:mixed", "sys:ro"],
    "lxc.environment": ["A=B", "C=D"],
    "lxc.hook.start": ["/bin/true"],
    "lxc.group": ["a,b", "c"],
    "lxc.init.groups": ["1,2", "3"],
    "lxc.namespace.keep": ["net"],
    "lxc.namespace.share.ipc": ["/proc/1/ns/ipc"],
    "lxc.tty.max": ["3"],
    "lxc.signal.halt": ["SIGINT"],
    "lxc.signal.stop": ["9"],
    "lxc.signal.reboot": ["SIGRTMIN+3"],
    "lxc.console.size": ["1MB"],
    "lxc.log.level": ["3"],
    "lxc.rootfs.path": ["dir:/tmp"],
    "lxc.rootfs.options": ["nodev,nosuid"],
    "lxc.autodev": ["0"],
    "lxc.time.offset.boot": ["3s"],
    "lxc.start.delay": ["x"],
    "lxc.no_new_privs": ["1"],
    "lxc.nonsense": ["x"],
    "lxc.net.0.type": ["veth"],
    "lxc.net.0.link": ["lo"],
    "lxc.net.0.flags": ["up"],
    "lxc.net.0.mtu": ["1400"],
    "lxc.net.0.ipv4.address": ["10.0.0.2/24", "10.0.0.3/24"],
    "lxc.net.0.ipv4.gateway": ["auto"],
    "lxc.net.0.ipv6.address": ["fd00::1/64"],
    "lxc.net.0.veth.ipv4.route": ["10.1.0.0/24"],
    "lxc.net.0.nonsense": ["x"],
    "lxc.net.1.type": ["empty"],
}.items():
    for value in values:
        says(f"append {key} {value}", lambda key=key, value=value: c.append_config_item(key, value))
    says(f"get {key}", lambda key=key: c.get_config_item(key))
for key in (
    "lxc.net",
    "lxc.cgroup2",
    "lxc.prlimit",
    "lxc.sysctl",
    "lxc.hook",
    "lxc.net.0",
    "lxc.net.5.type",
):
    says(f"get {key}", lambda key=key: c.get_config_item(key))
for key in ("lxc.net.0", "lxc.net.1", "lxc.cap"):
    says(f"keys of {key}", lambda key=key: sorted(c.get_keys(key)))

for ask in ("c.set_config_item('lxc.cap.drop', ['mknod', 'sys_time'])", "c.get_config_item('lxc.cap.drop')",
            "c.set_config_item('lxc.uts.name', 'new')", "c.set_config_item('lxc.tty.max', 'many')",
            "c.get_config_item('lxc.tty.max')", "c.set_config_item('lxc.nonsense', 'x')",
            "c.clear_config_item('lxc.mount.entry')", "c.get_config_item('lxc.mount.entry')",
            "c.network[0].type", "c.network[0].nonsense", "dir(c.network[0])", "repr(c.network[0])",
            "c.network.add('veth')", "c.network.remove(1)", "c.network[1].type", "c.network.remove(9)",
            "c.clear_config_item('lxc.net')", "len(c.network)", "c.save_config()", "c.defined",
            "lxc.list_containers(config_path=folder)", "lxc.list_containers(defined=False, config_path=folder)",
            "lxc.list_containers(as_object=True, config_path=folder)[0].name",
            "lxc.Container('none', folder).get_config_item('lxc.uts.name')", "c.snapshot_list()"):  # fmt: skip
    says(f"then {ask}", lambda ask=ask: eval(ask))
sys.stdout.write(json.dumps(found))
