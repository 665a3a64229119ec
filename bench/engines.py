"""The engines of `bench/running.py`: each has a container of /bin/sleep in the root that all are given."""

from __future__ import annotations

import json
import shutil
from functools import partial

from place import SCRIPT, WAITS, Place, config, made, oci_config
from running import Engine, spawned

from runtime.container import Container

_FOREVER = "1000000"
_TRUE = "/bin/true"


def engines(place: Place) -> list[Engine]:
    """Return those that are installed here, ours first."""
    return [
        *(ours(place, kind) for kind in ("overlay", "bind")),
        *oci(place),
        *lxc(place),
        *podman(place),
    ]


def ours(place: Place, kind: str) -> Engine:
    """Return the library's start, and the command as typed."""
    path = {"MKTEMPLATE_PATH": str(place.folder)}

    def container(name: str) -> Container:
        return Container(place.folder, f"{name}-{kind}")

    def commands(name: str) -> dict[str, tuple[str, ...]]:
        typed = (SCRIPT, "exec", f"{name}-{kind}", "--", _TRUE)
        program = str(container(name).directory / "exec")
        return {
            f"mktemplate exec, as typed, {kind}": typed,
            f"exec program, {kind}": (program, "/", SCRIPT, "--in-python", *typed[1:]),
        }

    def start(name: str) -> None:
        container(name).start()

    def prepare(name: str) -> None:
        made(place, f"{name}-{kind}", kind, f"{WAITS} {_FOREVER}").start_program()

    return Engine(
        name=f"mktemplate, {kind}",
        prepare=prepare,
        start=start,
        commands=commands,
        stop=lambda name: (SCRIPT, "stop", f"{name}-{kind}"),
        clean=lambda name: container(name).destroy(force=True),
        environment=path,
    )


def oci(place: Place) -> list[Engine]:
    """Return crun and runc; they have no monitor."""
    found = []
    state = str(place.folder / "running-oci")
    bundle = place.folder / "oci-waits"
    bundle.mkdir()
    (bundle / "config.json").write_text(json.dumps(oci_config(place, (WAITS, _FOREVER))))
    inside = bundle / "process.json"  # without it crun gives up rights in an order that it may not
    inside.write_text(json.dumps(oci_config(place, (_TRUE,))["process"]))
    for name, more in {"crun": ("--cgroup-manager=disabled",), "runc": ()}.items():
        if not (program := shutil.which(name)):
            continue
        call = (program, "--root", state, *more)
        run = (*call, "run", "-d", "--bundle", str(bundle))
        found.append(
            Engine(
                name=name,
                start=partial(_with, run),
                commands=partial(_exec, f"{name} exec", (*call, "exec", "--process", str(inside))),
                stop=partial(_named, (*call, "delete", "--force")),
                lacks="no monitor, no overlay",
            )
        )
    return found


def lxc(place: Place) -> list[Engine]:
    """Return lxc-start -d, lxc-attach, lxc-stop -k over the folder whose owners are shifted."""
    start, attach, stop = (shutil.which(f"lxc-{word}") for word in ("start", "attach", "stop"))
    if not (start and attach and stop):
        return []
    path = place.folder / "running-lxc"
    text = config(place, f"dir:{place.shifted}", f"{WAITS} {_FOREVER}")
    text = text.replace("lxc.rootfs.options = idmap=container\n", "")

    def prepare(name: str) -> None:
        folder = path / name
        folder.mkdir(parents=True)
        (folder / "config").write_text(text + "lxc.apparmor.profile = unconfined\n")

    here = ("-P", str(path), "-n")
    return [
        Engine(
            name="lxc",
            prepare=prepare,
            start=lambda name: spawned((start, *here, name, "-d")),
            commands=lambda name: {"lxc-attach": (attach, *here, name, "--", _TRUE)},
            stop=lambda name: (stop, "-k", *here, name),
            clean=lambda name: shutil.rmtree(path / name),
            lacks="no overlay",
        )
    ]


def podman(place: Place) -> list[Engine]:
    """Return podman, which has a conmon for each container."""
    if (program := shutil.which("podman")) is None:
        return []
    ids = (f"--uidmap=0:{place.first_id}:65536", f"--gidmap=0:{place.first_id}:65536")
    run = (program, "run", "-d", "--network=none", "--cgroups=disabled", "--log-driver=none", *ids)
    run = (*run, "--security-opt=no-new-privileges", "--name")
    return [
        Engine(
            name="podman",
            start=lambda name: spawned(
                (*run, name, "--rootfs", str(place.shifted), WAITS, _FOREVER)
            ),
            commands=lambda name: {"podman exec": (program, "exec", name, _TRUE)},
            stop=partial(_named, (program, "rm", "--force", "--time", "0")),
            lacks="its own filter",
        )
    ]


def _with(argv: tuple[str, ...], name: str) -> None:
    spawned((*argv, name))


def _named(argv: tuple[str, ...], name: str) -> tuple[str, ...]:
    return (*argv, name)


def _exec(words: str, argv: tuple[str, ...], name: str) -> dict[str, tuple[str, ...]]:
    return {words: (*argv, name)}
