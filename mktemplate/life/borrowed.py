"""`run NAME`: a container of its own on the layers of an existing one, with a fresh upper and fresh ids."""

from __future__ import annotations

import os
from contextlib import closing

from mktemplate.errors import CommandError
from mktemplate.making import hostpart, volumes, workshop
from mktemplate.template import facts
from runtime import bundle, idmap
from runtime import config as configs
from runtime.bundle import Bundle, Ready
from runtime.container import Container
from valuetypes import replace

_OWN = (
    "lxc.rootfs.",
    "lxc.mount.fstab",
    "lxc.seccomp.profile",
    "lxc.idmap",
    "lxc.uts.name",
    "lxc.init.cmd",
    "lxc.ephemeral",
    "lxc.cgroup.dir",
)
_ADDRESS = (".hwaddr", ".ipv4.address", ".ipv4.gateway")


def borrow(lender: Container, name: str) -> None:
    """Make the container `name` on the layers of `lender`; its PID 1 only waits and reaps."""
    found, config = lender.bundle, lender.config
    if found.record.flat or not found.record.layers:
        raise CommandError(
            "E_USAGE", f"run {lender.name}", "of a flat container: not in this version"
        )
    with (
        closing(workshop.store(lender.path)) as store,
        store.lock(f"create.{name}"),
        store.draft("container") as draft,
    ):
        layers = [store.layer(digest) for digest in found.record.layers]
        if None in layers:
            raise CommandError("E_CORRUPT", lender.name, "one of its layers is gone")
        os.rename(draft.root, draft.path / "upper")
        single = found.record.id_range[1] == 1
        allotted = idmap.allocate(lender.path, name, single=single) if config.idmap else None
        try:
            place = hostpart.Place(
                path=lender.path / name,
                layers=tuple(layer.path for layer in layers if layer),
                no_new_privs=config.no_new_privs,
                idmap=allotted.lines if allotted else (),
            )
            (draft.path / "config").write_text(_config(found, name, config.init_argv[0], place))
            (draft.path / "seccomp").write_bytes((found.path / "seccomp").read_bytes())
            (draft.path / "fstab").write_text(_fstab(found))
            record = replace(
                found.record,
                name=name,
                created=bundle.now(),
                ports=(),
                ready=Ready(),
                id_range=(allotted.first, allotted.count) if allotted else (0, 0),
            )
            bundle.write(Bundle(path=draft.path, record=record))
            store.place(draft, lender.path / name)
        except BaseException:
            if allotted:
                idmap.release(lender.path, allotted.first)
            raise


def _fstab(found: Bundle) -> str:
    """Return the lender's fstab without its managed volumes: the data are its own."""
    text = (found.path / "fstab").read_text(encoding="utf-8")
    own = f"{found.path / volumes.FOLDER}/"
    return "".join(line for line in text.splitlines(keepends=True) if not line.startswith(own))


def _config(found: Bundle, name: str, init: str, place: hostpart.Place) -> str:
    """Return the lender's configuration with what is its own taken out, and the borrower's put in."""
    lines = configs.read(found.config.read_text(encoding="utf-8"), "config")[0]
    own = f"{found.path / volumes.FOLDER}/"
    kept = [
        (line.key, line.value)
        for line in lines
        if not line.key.startswith(_OWN)
        and not line.key.endswith(_ADDRESS)
        and not (line.key == "lxc.mount.entry" and line.value.startswith(own))
    ]
    reaper = facts.REAPER if found.record.image else f"{init} {init.rpartition('/')[0]}/reaper"
    kept += [("lxc.uts.name", name), ("lxc.init.cmd", reaper)]
    return configs.render(kept) + hostpart.lines(place)
