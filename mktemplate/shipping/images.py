"""What an image says of itself → the texts of a container, under our default isolation.

An image is its author's (Z1u): it chooses the first process, its environment, its user, where it stands and which
signal ends it, and nothing of the host. Each value enters the config through the grammar of its key and is read back.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import signal

from mktemplate.errors import CommandError, escape
from mktemplate.making import workshop
from mktemplate.template import facts as facts_
from mktemplate.template import library
from mktemplate.template.facts import Facts, Target
from mktemplate.template.plan import Plan, Rendered
from mktemplate.template.render import renderer
from mktemplate.template.spec import Readiness, TemplateSpec
from provisioner.image.config import ImageConfig
from provisioner.image.furnish import Furniture
from provisioner.member import IDS
from provisioner.sandbox import Root
from provisioner.tree import Tree
from runtime import config as configs
from runtime import fstab as fstabs
from runtime import passwd
from runtime.errors import LaunchError
from valuetypes import dataclass, replace

NAME = "image"  # what `list` shows in a template's place
_INIT = f"{facts_.INIT}/init"  # of a root file system that mktemplate made
_RESERVED = ("proc", "sys", "dev", "run/mktemplate")  # T-08
_NUMBER = re.compile(r"0|[1-9][0-9]{0,9}", re.ASCII)
_WORD = re.compile(r"[a-z0-9][a-z0-9._-]{0,30}", re.ASCII)
_OS_RELEASE = re.compile(r"([A-Z_]+)=(?:\"([^\"$`\\]*)\"|'([^']*)'|([^\"'\s$`\\]*))", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Inhabitant:
    """What was found out inside an image's root."""

    uid: int = 0
    gid: int = 0
    groups: tuple[int, ...] = ()
    name: str = "root"
    home: str = "/root"
    distro: str = ""
    release: str = ""
    has_init: bool = False  # mktemplate's own


def check(image: ImageConfig, subject: str) -> None:
    """Refuse what an image may not ask for, before anything is unpacked (T-08, I-9)."""
    words = ((f"argument {number}", word) for number, word in enumerate(image.argv, 1))
    for what, word, code in (
        *((what, word, "E_CONFIG_VALUE") for what, word in words),
        *((f'"{escape(name)}"', value, "E_ENV") for name, value in image.env),
        ("its working directory", image.workdir, "E_CONFIG_VALUE"),
    ):
        if any((ord(char) < 0x20 and char != "\t") or char == "\x7f" for char in word):
            raise CommandError(
                code, subject, f"{what}: control characters cannot stand in a config"
            )
        if any(0xD800 <= ord(char) < 0xE000 for char in word):
            raise CommandError(code, subject, f"{what}: is no UTF-8")
    for path in image.volumes:
        _check_volume(path, subject)
    _signal(image.stop_signal, subject)


def _check_volume(path: str, subject: str) -> None:
    parts = [part for part in path.split("/") if part not in ("", ".")]
    shown = f'volume "{escape(path[:80])}"'
    if not path.startswith("/") or ".." in parts or not parts or not path.isprintable():
        raise CommandError("E_FSTAB_TARGET", subject, f"{shown} is no place inside")
    place = "/".join(parts) + "/"
    if any(place.startswith(f"{top}/") for top in _RESERVED):
        raise CommandError("E_FSTAB_TARGET", subject, f"{shown}: /{parts[0]} may not be covered")


def _signal(word: str, subject: str) -> str:
    """Return the stop signal as a template names it, without SIG; TERM where the image says nothing."""
    bare = word.upper().removeprefix("SIG")
    if not bare:
        return "TERM"
    if _NUMBER.fullmatch(bare) and int(bare) in {each.value for each in signal.Signals}:
        return signal.Signals(int(bare)).name.removeprefix("SIG")
    if f"SIG{bare}" in signal.Signals.__members__ or re.fullmatch(r"RTMIN\+[0-9]{1,2}", bare):
        return bare
    raise CommandError(
        "E_CONFIG_VALUE", subject, f'its stop signal "{escape(word[:40])}" is no signal'
    )


def furniture(image: ImageConfig, arch: str) -> Furniture:
    """Return what the image's root must have for a start."""
    programs = {}
    if arch in facts_.REAPERS:
        body = library.built_in().read(f"_init/reaper.{facts_.REAPERS[arch]}")
        programs[facts_.REAPER] = body
    directories = [_workdir(image), *image.volumes]
    return Furniture(
        directories=tuple(path for path in directories if path.strip("/")), programs=programs
    )


def _workdir(image: ImageConfig) -> str:
    parts = [part for part in image.workdir.split("/") if part not in ("", ".")]
    return "/" + "/".join(part for part in parts if part != "..")


def look(root: Root, image: ImageConfig, subject: str) -> Inhabitant:
    """Find out in the image's own root who its user is and what it calls itself; CommandError E_USER, E_IDMAP."""
    wanted = image.user
    found = json.loads(workshop.sandbox().call(root, lambda: _look(wanted)))
    if "refused" in found:
        raise CommandError("E_USER", subject, f'user "{escape(wanted[:80])}": {found["refused"]}')
    values = {**found, "groups": tuple(found["groups"])}
    inhabitant = Inhabitant(**values)
    for number in (inhabitant.uid, inhabitant.gid, *inhabitant.groups):
        if number >= IDS:
            detail = f'user "{escape(wanted)}": {number} is outside the container\'s range'
            raise CommandError("E_IDMAP", subject, detail)
    return inhabitant


def _look(user: str) -> bytes:
    """Look as the root of the image; it may import nothing."""
    top = os.open("/", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    told = {**_os_release(top), "has_init": os.access(_INIT, os.X_OK)}
    if not user:
        return json.dumps({**told, "groups": []}).encode()
    name, _, group = user.partition(":")
    try:
        account = passwd.find(top, user if group else name)
    except LaunchError as error:
        return json.dumps({"refused": error.detail}).encode()
    unknown = _NUMBER.fullmatch(name) and account.name == name
    return json.dumps(
        {
            **told,
            "uid": account.uid,
            # A number without an entry has root's group, as everywhere images run.
            "gid": 0 if unknown and not group else account.gid,
            "groups": list(account.groups),
            "name": account.name,
            "home": account.home,
        }
    ).encode()


def _os_release(top: int) -> dict[str, str]:
    """Return how the system calls itself (os-release(5)); only words that can stand anywhere."""
    text = b""
    for name in ("etc/os-release", "usr/lib/os-release"):
        try:
            text = text or passwd.read(top, name)
        except LaunchError:
            continue
    found = {}
    for line in text.decode("utf-8", "replace").split("\n")[:100]:
        match = _OS_RELEASE.fullmatch(line.strip())
        if match:
            found[match[1]] = match[2] or match[3] or match[4] or ""
    named = found.get("VERSION_CODENAME") or found.get("VERSION_ID") or ""
    return {
        key: word if _WORD.fullmatch(word) else ""
        for key, word in (("distro", found.get("ID", "")), ("release", named))
    }


def spec(image: ImageConfig, subject: str) -> TemplateSpec:
    """Return the image as a template would be: its stop signal, and when it is ready."""
    tcp = [number for number, proto in image.ports if proto == "tcp"]
    return TemplateSpec(
        name=NAME,
        summary=f"image {subject}",
        origin="image",
        trusted=False,
        stop_signal=_signal(image.stop_signal, subject),
        distros=(NAME,),
        ports=tuple(tcp),
        ready=Readiness(port=tcp[0]) if len(tcp) == 1 else Readiness(),
    )


def target(arch: str, inhabitant: Inhabitant | None = None) -> Target:
    """Return what the container counts as; the image's own words once somebody has looked inside."""
    distro = inhabitant.distro if inhabitant else ""
    release = inhabitant.release if inhabitant else ""
    return Target(distro=distro or NAME, release=release, arch=arch, family=NAME)


def plan(image: ImageConfig, facts: Facts, found: Inhabitant, made: TemplateSpec) -> Plan:
    """Return the texts of the container; CommandError or ConfigError where a value cannot stand in them."""
    told = facts_.values(made, replace(facts, env=()))
    jinja = renderer(library.built_in(), NAME, told)  # type: ignore[arg-type]  # values are Jinja's
    lines = _lines(image, facts, found)
    config = f"{jinja.file('_image/config.j2')}\n# the image's own\n{configs.render(lines)}"
    fstab = jinja.file("fstabs/provisioned.fstab.j2")
    rendered = Rendered(packages=(), tree="", fstab=fstab, config=config, files={})
    fstabs.parse(fstab, "fstab", from_template=True)
    parsed = configs.parse(config, "config")
    return Plan(
        spec=made,
        facts=facts,
        rendered=rendered,
        tree=Tree(),
        no_new_privs=parsed.no_new_privs,
        mount_entries=parsed.mount_entries,
    )


def _argv(image: ImageConfig, found: Inhabitant) -> tuple[str, ...]:
    """Return the first process: the image's, else mktemplate's own init, else one that only waits and reaps."""
    return image.argv or ((_INIT,) if found.has_init else (facts_.REAPER,))


def _lines(image: ImageConfig, facts: Facts, found: Inhabitant) -> list[tuple[str, str]]:
    own = dict(image.env)
    defaults = {"HOME": found.home} | ({"USER": found.name} if found.uid else {})
    env = {**{key: value for key, value in defaults.items() if key not in own}, **own}
    env |= dict(pair.split("=", 1) for pair in facts.env)
    lines = [("lxc.init.cmd", shlex.join(_argv(image, found)))]
    lines += [("lxc.environment", f"{name}={value}") for name, value in env.items()]
    if found.uid or found.gid:
        lines += [("lxc.init.uid", str(found.uid)), ("lxc.init.gid", str(found.gid))]
    if found.groups:
        lines.append(("lxc.init.groups", ",".join(map(str, found.groups))))
    if _workdir(image) != "/":
        lines.append(("lxc.init.cwd", _workdir(image)))
    return lines


def notes(image: ImageConfig, found: Inhabitant) -> tuple[str, ...]:
    """Return what a person should know of the image."""
    told = list(image.notes)
    if not image.argv and not found.has_init:
        told.append("it names no program to run: its first process only waits (mktemplate shell)")
    if image.ports:
        ports = ", ".join(f"{number}/{proto}" for number, proto in image.ports)
        told.append(f"it listens on {ports}: --publish makes a port reachable")
    if image.volumes:
        told.append(f"it keeps data in {', '.join(image.volumes)}")
    return tuple(told)
