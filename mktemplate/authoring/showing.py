"""What a template is to who uses it: as one JSON object, and as a page that is enough to configure it."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence

from mktemplate.making import asked
from mktemplate.template import grants, secretfiles
from mktemplate.template.declared import DataVolume
from mktemplate.template.firststart import Fill
from mktemplate.template.spec import TemplateSpec
from mktemplate.template.values import Option

_WIDTH = 100
_LEFT = 26  # columns of what stands before the help


def about(spec: TemplateSpec) -> dict[str, object]:
    """Return what `show --json` prints."""
    return {
        "name": spec.name,
        "summary": spec.summary,
        "origin": spec.origin,
        "trusted": spec.trusted,
        "source": spec.source or None,
        "grants": list(spec.grants),
        "asks": [word for word, _ in grants.asks(spec)] if not spec.trusted else [],
        "profile": spec.profile,
        "distros": list(asked.supported(spec)),
        "packages": {key: list(names) for key, names in spec.packages.items()},
        "options": [
            {
                "name": option.name,
                "type": option.type,
                "default": option.default,
                "help": option.help,
                "choices": list(option.choices),
                "required": option.required,
                **_of_secret(option),
            }
            for option in spec.options
        ],
        "examples": list(examples(spec)),
        "repositories": [
            {"uris": list(each.uris), "suites": list(each.suites), "only": list(each.only)}
            for each in spec.repositories
        ],
        "downloads": [
            {"url": each.url, "sha256": each.sha256, "to": each.to} for each in spec.downloads
        ],
        "ports": [_port(spec, port) for port in spec.ports],
        "users": [_login_user(spec)] if spec.login_keys else [],
        "mounts": [volume.path for volume in spec.volumes],
        "volumes": [
            {
                "name": volume.name,
                "path": volume.path,
                "owner": volume.owner,
                "group": volume.group or volume.owner,
                "mode": f"{volume.mode:04o}",
                "help": volume.help,
            }
            for volume in spec.volumes
        ],
        "devices": [
            {
                "path": device.path,
                "group": device.group or None,
                "optional": device.optional,
                "help": device.help,
            }
            for device in spec.devices
        ],
        "keep": list(spec.keep),
        "command": list(spec.command),
        "service_user": spec.service_user,
        "init_safe": spec.init_safe,
        "ready": {
            "port": _port(spec, spec.ready.port) if spec.ready.port else None,
            "command": spec.ready.command or None,
            "file": spec.ready.file or None,
            "timeout": spec.ready.timeout,
        },
        "connect": spec.connect,
    }


def _of_secret(option: Option) -> dict[str, object]:
    """Return what is told of a secret alone: whether it is made where none was given, and how an image takes it."""
    if option.type != "secret":
        return {}
    return {
        "made": option.made,
        "made_file": f"/{secretfiles.MADE}/{option.name}" if option.made else None,
        "environment": secretfiles.variable(option.name),
    }


def _login_user(spec: TemplateSpec) -> object:
    option = spec.option("user")
    return spec.user or (option.default if option else "root")


def _port(spec: TemplateSpec, port: int | str) -> object:
    option = spec.option(port) if isinstance(port, str) else None
    return option.default if option else port


def examples(spec: TemplateSpec) -> tuple[str, ...]:
    """Return command lines to begin with: the template's own, else what its facts come to."""
    if spec.examples:
        return spec.examples
    up = f"mktemplate up {spec.name}"
    secrets = [f"--secret {each.name}=@FILE" for each in spec.secrets if each.made or each.required]
    publish = [f"--publish {_port(spec, port)}" for port in spec.ports[:1]]
    data = [_own_volume(each) for each in spec.volumes[:1]]
    lines = ((up,), (up, *secrets, *publish), (up, *data))
    return tuple(dict.fromkeys(" ".join(line) for line in lines))


def _own_volume(volume: DataVolume) -> str:
    owner = f":owner={volume.owner}" if volume.owner != "root" else ""
    return f"--volume DIR:{volume.path}{owner}"


def page(spec: TemplateSpec, filled: Fill) -> str:
    """Return what `show` prints; `filled` fills in what a command names."""
    sections = (
        ("", _head(spec)),
        ("Examples", (f"  {line}" for line in examples(spec))),
        ("Reach it", _reach(spec, filled)),
        ("Options: --set NAME=VALUE", _options(spec)),
        ("Secrets: --secret NAME=@FILE, NAME=- (standard input) or NAME=env:VAR", _secrets(spec)),
        ("Data: `upgrade` keeps it, `destroy` removes it, --volume DIR:PLACE puts yours there", _volumes(spec)),
        ("Devices of this host", _devices(spec)),
        ("What it is made of", _made_of(spec, filled)),
    )  # fmt: skip
    blocks = []
    for title, lines in sections:
        body = list(lines)
        if body:
            blocks.append("\n".join([*([title] if title else []), *body]))
    return "\n\n".join(blocks)


def _head(spec: TemplateSpec) -> Iterator[str]:
    yield f"{spec.name}: {spec.summary}"
    if spec.source:
        yield f"  added from {spec.source}"
    if not spec.trusted:
        granted = f", granted: {', '.join(spec.grants)}" if spec.grants else ""
        yield f"  not trusted (origin: {spec.origin}){granted}"
        for word, what in grants.asks(spec):
            if word not in spec.grants:
                yield f"  may want {what}: --grant {word}"


def _reach(spec: TemplateSpec, filled: Fill) -> Iterator[str]:
    if spec.connect:
        yield f"  {filled(spec.connect).replace('{name}', spec.name).replace('{address}', 'ADDRESS')}"
    for port in spec.ports:
        number = _port(spec, port)
        by = f" (option {port})" if isinstance(port, str) else ""
        publish = f"--publish {number} for this host, --publish 0.0.0.0:{number}:{number} for all"
        yield f"  port {number}{by}: {publish}"
    if spec.login_keys:
        yield f"  {_login_user(spec)} logs in with your ssh keys, or those of --ssh-key FILE"


def _row(left: str, kind: str, text: str) -> Iterator[str]:
    """Yield the lines of one entry: what to type, its type, what it means."""
    begin = f"  {left:<{_LEFT}}{kind:<8}" if kind else f"  {left:<{_LEFT}}"
    if len(left) >= _LEFT:
        yield from textwrap.wrap(left, _WIDTH - 2, initial_indent="  ", subsequent_indent="    ",
                                 break_on_hyphens=False)  # fmt: skip
        begin = f"{'':{_LEFT + 2}}{kind:<8}" if kind else " " * (_LEFT + 2)
    indent = " " * len(begin)
    lines = textwrap.wrap(
        text, _WIDTH, initial_indent=begin, subsequent_indent=indent, break_on_hyphens=False
    )
    yield from lines or [begin.rstrip()]


def _options(spec: TemplateSpec) -> Iterator[str]:
    for option in spec.options:
        if option.type != "secret":
            more = f" ({', '.join(option.choices)})" if option.choices else ""
            packages = f" [brings {', '.join(option.packages)}]" if option.packages else ""
            yield from _row(
                f"{option.name}={_default(option)}", option.type, f"{option.help}{more}{packages}"
            )


def _default(option: Option) -> str:
    value = option.default
    if option.required:
        return "… (required)"
    if isinstance(value, bool):
        return "true" if value else "false"
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def _secrets(spec: TemplateSpec) -> Iterator[str]:
    for option in spec.secrets:
        yield from _row(option.name, "", option.help)
        if option.required:
            yield from _row("", "", "must be given")
        elif option.made:
            yield from _row("", "", "made at the first start where none is given; this reads it:")
            yield f"  {'':<{_LEFT}}{secretfiles.reading(spec.name, option.name)}"
        else:
            yield from _row("", "", "optional")
        yield from _row(
            "", "", f"in an exported image: the variable {secretfiles.variable(option.name)}"
        )


def _volumes(spec: TemplateSpec) -> Iterator[str]:
    for each in spec.volumes:
        yield from _row(each.path, "", f"{each.help or each.name}; of {each.owner}")


def _devices(spec: TemplateSpec) -> Iterator[str]:
    for each in spec.devices:
        yield from _row(
            each.path, "", f"{each.help}{' (optional)' if each.optional else ''}".strip()
        )


def _made_of(spec: TemplateSpec, filled: Fill) -> Iterator[str]:
    yield from _facts("distros", asked.supported(spec))
    for key, names in spec.packages.items():
        yield from _facts(f"packages for {key}" if key != "all" else "packages", names)
    for repository in spec.repositories:
        of = " ".join(repository.only) or "what the distribution lacks"
        yield from _row("repository", "", f"{' '.join(repository.uris)}: {of}")
    for download in spec.downloads:
        yield from _row("download", "", f"{download.url}, as {download.to}")
    run = filled(" ".join(spec.command)) or "nothing but its init"
    yield from _row("runs", "", f"{run}{f' (as {spec.service_user})' if spec.command else ''}")
    yield from _row("ready", "", filled(_ready(spec)))
    yield from _row("rights", "", f"profile {spec.profile}{_setuid(spec)}")


def _facts(name: str, words: Sequence[str]) -> Iterator[str]:
    if words:
        yield from _row(name, "", ", ".join(words))


def _ready(spec: TemplateSpec) -> str:
    ready = spec.ready
    within = f", within {ready.timeout} s"
    if ready.port:
        return f"when port {_port(spec, ready.port)} accepts a connection{within}"
    if ready.command or ready.file:
        return f"when {ready.command or ready.file} {'succeeds' if ready.command else 'is there'}{within}"
    return "at once"


def _setuid(spec: TemplateSpec) -> str:
    if isinstance(spec.needs_setuid, str):
        return f", setuid programs with {spec.needs_setuid}=true"
    return ", setuid programs work" if spec.needs_setuid else ""
