"""What --grant may name, and what a template that is not trusted gets by such a grant only (security.md 0.2).

A grant is the caller's word for one container, or was given once to `templates add` for a template that it keeps.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from mktemplate.errors import CommandError, Several, escape, nearest
from mktemplate.template.spec import TemplateSpec
from mktemplate.template.values import Value

# KIND → what VALUE is, and what is granted by it
KINDS = {
    "device": "PATH: a template that is not trusted gets this device of the host",
    "mount": "PATH: such a template may mount what lies at or below this path of the host",
    "profile": "login or system: such a template runs with that profile's capabilities",
    "run": "host: such a template's tests may run commands on the host",
    "seccomp": "ptrace or mknod: this is allowed inside",
    "setuid": "programs: such a template lets setuid programs gain rights inside",
    "socket": "PATH: --volume may give this socket of the host",
    "trust": "none: packages need no signature",
}
SETUID = "setuid:programs"
RUN = "run:host"
_CLOSED = {
    "profile": ("login", "system"),
    "run": ("host",),
    "seccomp": ("ptrace", "mknod"),
    "setuid": ("programs",),
    "trust": ("none",),
}
KEPT = ("device", "mount", "profile", "setuid")  # what `templates add` may grant for good


def grant(text: str) -> str:
    """Return the word of --grant, or raise E_PARAM: KIND:VALUE, KIND one of `KINDS`."""
    kind, colon, value = text.partition(":")
    shown = f"--grant {escape(text)}"
    if kind not in KINDS or not colon:
        close = nearest(kind, tuple(KINDS))
        hint = f"did you mean {close[0]}:…?" if close else f"there is {', '.join(KINDS)}"
        raise CommandError("E_PARAM", shown, "is no KIND:VALUE that can be granted", hints=(hint,))
    known = _CLOSED.get(kind)
    if known and value not in known:
        raise CommandError("E_PARAM", shown, f"{kind} is granted as {' or '.join(known)}")
    if not known and not value.startswith("/"):
        raise CommandError("E_PARAM", shown, f"{kind} needs an absolute path")
    return text


def given(spec: TemplateSpec, grants: Sequence[str]) -> frozenset[str]:
    """Return what is granted to a template: what a request's `grants` say, and what was kept when it was added."""
    return frozenset((*spec.grants, *grants))


def paths(granted: frozenset[str]) -> tuple[str, ...]:
    """Return the paths of the host below which mounts are granted."""
    return tuple(sorted(word.partition(":")[2] for word in granted if word.startswith("mount:")))


def wishes(spec: TemplateSpec, options: Mapping[str, Value]) -> Iterator[tuple[str, str]]:
    """Yield each grant without which the template cannot work where it is not trusted, and what it is for."""
    if spec.profile != "service":
        yield f"profile:{spec.profile}", f"the capabilities of the profile {spec.profile}"
    wanted = spec.needs_setuid
    if options.get(wanted) is True if isinstance(wanted, str) else wanted:
        yield SETUID, "setuid programs"
    for device in spec.devices:
        if not device.optional:
            yield f"device:{device.path}", f"the device {device.path}"


def asks(spec: TemplateSpec) -> tuple[tuple[str, str], ...]:
    """Return what a template may ever ask for: with every bool option, and with its optional devices."""
    truth: dict[str, Value] = {each.name: True for each in spec.options if each.type == "bool"}
    devices = ((f"device:{each.path}", f"the device {each.path}") for each in spec.devices)
    return tuple(dict.fromkeys((*wishes(spec, truth), *devices)))


def check(spec: TemplateSpec, grants: Sequence[str], options: Mapping[str, Value]) -> None:
    """Raise E_CONFIG_GRANT for each thing that a template which is not trusted wants and nobody granted."""
    if spec.trusted:
        return
    granted = given(spec, grants)
    missing = tuple(
        CommandError(
            "E_CONFIG_GRANT",
            spec.name,
            f"is not trusted, and wants {what}",
            hints=(f"--grant {word} gives it",),
        )
        for word, what in wishes(spec, options)
        if word not in granted
    )
    if missing:
        raise missing[0] if len(missing) == 1 else Several(missing)
