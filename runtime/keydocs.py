"""The page docs/lxc-keys.md, from the tables that the parser and the start use. Not imported by any verb."""

from __future__ import annotations

from runtime import grants
from runtime.check import STRICTER
from runtime.keys import IGNORED, KEYS, NET_KEYS, NOTED, REFUSED, VERSION, PairKey
from runtime.refuse import _RULES as START_RULES

_HEAD = """# LXC's keys

Written by `scripts/lxc-keys` from the tables in `runtime/`; do not edit.

Every key of lxc.container.conf(5), LXC 6 and 7. *start*: **yes** does what LXC does; **refused** names why and does
not start; **no effect** has none in LXC either, or here nothing to act on; **left out** is said at every start.
*template*: whether a template may write it.

| key | LXC | start | template |
|---|---|---|---|
"""
_STRICT = """
## Where we are stricter than liblxc 6

`check` follows liblxc 6: 0 where it loads, 2 where it does not. On purpose we refuse what it loads here:

| what | because |
|---|---|
"""


def page() -> str:
    """Return the page."""
    rules = {name.split(" ")[0]: reason for name, _, reason in START_RULES}
    rows = [_row(key.name, isinstance(key, PairKey), rules) for key in KEYS]
    rows += [_row(f"lxc.net.N.{key.name}", False, rules) for key in NET_KEYS]
    strict = [f"| {what} | {reason} |\n" for what, reason in STRICTER.items()]
    return _HEAD + "".join(rows) + _STRICT + "".join(strict)


def _row(name: str, pairs: object, rules: dict[str, str]) -> str:
    version = str(VERSION.get(name, "6, 7"))
    shown = f"{name}.*" if pairs else name
    example = f"{name}.x" if pairs else name.replace(".N.", ".0.")
    may = "yes" if grants.templates_may_write(example) else ""
    if name == "lxc.cgroup2":
        may = "memory.max, memory.oom.group, pids.max, cpu.weight, cpu.max"
    return f"| `{shown}` | {version} | {_stance(name, rules)} | {may} |\n"


def _stance(name: str, rules: dict[str, str]) -> str:
    if name in IGNORED:
        return f"no effect: {IGNORED[name]}"
    if name in NOTED:
        return f"left out with a note: {NOTED[name]}"
    if name in REFUSED:
        return f"refused: {REFUSED[name]}"
    if name in rules:
        return (
            "yes, or refused where it asks for more: " + rules[name]
            if name in _PARTLY
            else f"refused: {rules[name]}"
        )
    return "yes"


_PARTLY = frozenset(
    {
        "lxc.mount.auto",
        "lxc.namespace.share",
        "lxc.selinux.context",
        "lxc.rootfs.path",
        "lxc.cgroup.dir.container",
        "lxc.apparmor.raw",
        "lxc.console.path",
        "lxc.net.N.ipv6.gateway",
        "lxc.net.N.link",
        "lxc.tty.max",
    }
)
