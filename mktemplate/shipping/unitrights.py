"""What a container may do and use, in the words of a systemd unit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from mktemplate.shipping.shipment import Shipment
from provisioner.export.portable import Rights
from runtime import seccomp
from runtime.confinement import kept_capabilities

_ALLOW = 0x7FFF0000  # SECCOMP_RET_ALLOW
_LAST = 40  # CAP_CHECKPOINT_RESTORE, the last one that every kernel from 5.9 on knows


def rights(shipped: Shipment) -> Rights:
    """Return the rights of the container's configuration."""
    config = shipped.config
    text = (shipped.bundle.path / "seccomp").read_text(encoding="utf-8")
    kept = kept_capabilities(config, _LAST) | {"net_bind_service"}  # the network is the host's
    return Rights(
        capabilities=tuple(f"CAP_{name.upper()}" for name in sorted(kept)),
        calls=_calls(text) if config.seccomp_profile else (),
        no_new_privileges=bool(config.no_new_privs),
        limits=tuple(_limits(dict(config.cgroup2))),
    )


def _calls(text: str) -> tuple[str, ...]:
    """Return the system calls that an allow-list allows, none for another list.

    What depends on arguments is RestrictNamespaces' and RestrictAddressFamilies' affair; so is clone3, to which they
    answer ENOSYS, as our own filter does: a C library must not hear anything else.
    """
    profile = seccomp.parse(text)
    if profile.default == _ALLOW:
        return ()
    return tuple(
        sorted({rule.name for rule in profile.rules if rule.action == _ALLOW} | {"clone3"})
    )


def _limits(found: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for key, name in (("memory.max", "MemoryMax"), ("pids.max", "TasksMax")):
        if found.get(key, "max") != "max":
            yield name, found[key]
    quota, _, period = found.get("cpu.max", "max").partition(" ")
    if quota != "max":
        yield "CPUQuota", f"{max(1, 100 * int(quota) // int(period or 100_000))}%"
