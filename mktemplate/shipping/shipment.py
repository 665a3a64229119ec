"""A container as something to be shipped: what its record and its files say, as the provisioner's Image.

What lies outside its layers stays here: the data of volumes, published ports, limits, devices. `left_out` names it, and
each target says which of it it can carry.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

from mktemplate.console import Console
from mktemplate.errors import CommandError
from mktemplate.life import copies
from mktemplate.making import workshop
from provisioner.export.image import Image, Part
from runtime import fstab as fstabs
from runtime.bundle import Bundle, Ready
from runtime.config import ContainerConfig
from runtime.container import Container
from runtime.fstab import MountEntry
from valuetypes import dataclass

_PIDS = "2048"  # what every container may have, unless it was told otherwise


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """Something of a container that an image does not hold."""

    topic: str  # health, limits, ports, volumes, devices, user, restart, network
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Shipment:
    """A container that stands still while it is read."""

    image: Image
    container: Container
    bundle: Bundle
    config: ContainerConfig
    mounts: tuple[MountEntry, ...]  # that need nothing of this host
    notes: tuple[Note, ...]
    draft: Path  # an empty folder that is gone afterwards, also where this command is killed
    paused: bool  # it ran, and stands still

    def left_out(self, carried: frozenset[str]) -> tuple[str, ...]:
        """Return what a target that carries the topics `carried` does not express."""
        return tuple(note.text for note in self.notes if note.topic not in carried)


@contextmanager
def shipment(container: Container) -> Iterator[Shipment]:
    """Hold `container` as it is, with its layers, for the length of the block."""
    found = container.bundle
    _refuse(found)
    with ExitStack() as stack:
        store = stack.enter_context(closing(workshop.store(container.path)))
        stack.enter_context(store.lock(f"create.{container.name}"))
        layers = [store.layer(digest) for digest in found.record.layers]
        if None in layers:
            raise CommandError("E_CORRUPT", container.name, "one of its layers is gone")
        parts = [Part(path=layer.path, title=layer.origin) for layer in layers if layer]
        parts.append(Part(path=found.path / copies.trees_of(found.path)[0], title="written"))
        config = container.config
        mounts, kept = _mounts(found, config)
        draft = stack.enter_context(store.draft("export"))
        paused = stack.enter_context(copies.standing_still(container))
        epoch = max((layer.epoch for layer in layers if layer), default=0)
        yield Shipment(
            image=_image(found, config, tuple(parts), mounts, epoch),
            container=container,
            bundle=found,
            config=config,
            mounts=kept,
            notes=tuple(_notes(found, config, mounts)),
            draft=draft.root,
            paused=paused,
        )


def tell_left_out(
    shipped: Shipment, target: str, carried: frozenset[str], console: Console, *, strict: bool
) -> tuple[str, ...]:
    """Say what `target` does not express, and return it; `strict` makes that E_PARAM."""
    left, name = shipped.left_out(carried), shipped.image.name
    if left and strict:
        detail = f"{target} does not carry " + "; ".join(left)
        raise CommandError("E_PARAM", f"{name} --strict", detail)
    if shipped.paused:
        console.note(f"{name} stands still while it is read")
    for text in left:
        console.note(f"{target} does not carry {text}")
    return left


def _refuse(found: Bundle) -> None:
    record = found.record
    if not record.template:
        raise CommandError(
            "E_PARAM",
            found.name,
            "is of somebody else's making: only what mktemplate made is exported",
        )
    if record.shared_host:
        raise CommandError(
            "E_PARAM",
            found.name,
            "borrows this host's /usr, which no other machine has",
            hints=("make it without --share-host",),
        )


def _image(
    found: Bundle,
    config: ContainerConfig,
    parts: tuple[Part, ...],
    mounts: tuple[MountEntry, ...],
    epoch: int,
) -> Image:
    record = found.record
    user = f"{config.init_uid}:{config.init_gid}" if config.init_uid or config.init_gid else ""
    return Image(
        name=found.name,
        template=record.template,
        distro=record.distro,
        release=record.release,
        arch=record.arch,
        epoch=epoch,
        parts=parts,
        argv=config.init_argv,
        environment=config.environment + config.environment_runtime,
        folder=config.init_cwd or "/",
        user=user,
        ports=record.exposes,
        volumes=tuple(f"/{mount.target.strip('/')}" for mount in mounts if mount.create == "dir"),
        stop_signal=f"SIG{record.stop_signal}",
        health=_health(found),
        sandbox=workshop.owners(),
    )


def _health(found: Bundle) -> tuple[str, ...]:
    """Return an argv that succeeds inside when the service is ready; a port is looked up in the kernel's own table."""
    ready = found.record.ready
    if ready.expect:
        return ("/bin/bash", "-c", _asking(ready))
    if ready.kind == "command":
        return ("/bin/sh", "-c", ready.value)
    if ready.kind == "file":
        return ("/usr/bin/test", "-e", ready.value)
    if ready.kind == "port":
        listening = f":{int(ready.value):04X} [0:]+ 0A "  # proc_net_tcp(5): local, remote, state
        return ("/bin/grep", "-qsE", listening, "/proc/net/tcp", "/proc/net/tcp6")
    return ()


def _asking(ready: Ready) -> str:
    """Return bash's words for what runtime.answer does; its variables hold no NUL, so the answer is compared in hex.

    The answer is read whole: what is left unread would be a connection reset in the service's log.
    """
    send, expect = (text.encode("latin-1").hex() for text in (ready.send, ready.expect))
    told = re.sub("..", r"\\x\g<0>", send)
    first = f"dd bs=4096 count=1 2>/dev/null <&3 | head -c {len(expect) // 2}"
    heard = f"{first} | od -An -v -tx1 | tr -d ' \\n'"
    return (
        f"exec 3<>/dev/tcp/localhost/{ready.value} && printf '{told}' >&3 && "
        f'[ "$({heard})" = {expect} ]'
    )


def _mounts(
    found: Bundle, config: ContainerConfig
) -> tuple[tuple[MountEntry, ...], tuple[MountEntry, ...]]:
    """Return what of the host is mounted in the container, and what else is."""
    text = (found.path / "fstab").read_text(encoding="utf-8", errors="surrogateescape")
    entries = (*fstabs.parse(text, f"{found.path}/fstab"), *config.mount_entries)
    hosts = tuple(entry for entry in entries if _is_hosts(entry))
    return hosts, tuple(entry for entry in entries if not _is_hosts(entry))


def _is_hosts(entry: MountEntry) -> bool:
    return entry.source.startswith("/") and entry.source != "/dev/null" and not entry.relative


def _notes(
    found: Bundle, config: ContainerConfig, mounts: tuple[MountEntry, ...]
) -> Iterator[Note]:
    record = found.record
    ready = record.ready
    if ready.kind:
        yield Note(topic="health", text=f"its readiness check: {ready.kind} {ready.value}")
    for port in record.ports:
        where = f"{port.where} → {port.container}/{port.proto}"
        yield Note(topic="ports", text=f"the published port {where}")
    yield from map(_mounted, mounts)
    yield from _limits(dict(config.cgroup2))
    if config.init_uid or config.init_gid:
        yield Note(topic="user", text=f"the user of PID 1: {config.init_uid}:{config.init_gid}")
    if record.restart != "no":
        yield Note(topic="restart", text=f"the restart policy {record.restart}")
    kinds = (nic.kind for nic in config.nics if nic.kind not in {"veth", "empty"})
    yield from (Note(topic="network", text=f"the network of kind {kind}") for kind in kinds)


def _mounted(mount: MountEntry) -> Note:
    if mount.source.startswith("/dev/"):
        return Note(topic="devices", text=f"the device {mount.source}")
    where = f"/{mount.target.strip('/')}"
    return Note(topic="volumes", text=f"what is mounted at {where}: its data stays here")


def _limits(found: Mapping[str, str]) -> Iterator[Note]:
    for key, usual in (("memory.max", ""), ("cpu.max", ""), ("pids.max", _PIDS)):
        value = found.get(key, usual)
        if value != usual:
            yield Note(topic="limits", text=f"the limit {key} = {value}")
