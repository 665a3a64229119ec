"""`render`, `show`, `templates`, `distros`: what needs no root, no network and nothing of the host."""

from __future__ import annotations

import base64
import os
from dataclasses import replace
from pathlib import Path

from mktemplate import asked, keys, secretfiles, texts
from mktemplate.cli import Request
from mktemplate.console import Console
from mktemplate.errors import CommandError
from mktemplate.spec import TemplateSpec
from mktemplate.texts import Rendered
from mktemplate.values import Option
from provisioner import distro as distros


def render(request: Request, console: Console) -> int:
    """Print the texts of a template, or write them into the directory of -o."""
    template, facts = asked.understood(request)
    given = tuple(key for file in request.build.ssh_keys for key in keys.read(file))
    plan = texts.plan(template, replace(facts, keys=given), request.build.packages)
    if request.flags.output:
        _write(plan.rendered, Path(request.flags.output))
        console.step(f"wrote {request.flags.output}")
        if not console.json:
            return 0
    console.result(document(plan.rendered), _pages(plan.rendered))
    return 0


def document(rendered: Rendered) -> dict[str, object]:
    """Return the texts as `render --json` prints them; a body that is no text is `base64:…`."""
    return {
        "packages": list(rendered.packages),
        "tree": rendered.tree,
        "fstab": rendered.fstab,
        "config": rendered.config,
        "files": {name: _as_text(body) for name, body in rendered.files.items()},
    }


def _as_text(body: bytes) -> str:
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError:
        text = "\0"
    return text if "\0" not in text else f"base64:{base64.b64encode(body).decode()}"


def _pages(rendered: Rendered) -> str:
    pages = [
        ("packages", "".join(f"{name}\n" for name in rendered.packages)),
        ("tree", rendered.tree),
        ("fstab", rendered.fstab),
        ("config", rendered.config),
        *((f"files/{name}", _as_text(body)) for name, body in rendered.files.items()),
    ]
    return "\n".join(f"==> {name} <==\n{text}" for name, text in pages)


def _write(rendered: Rendered, folder: Path) -> None:
    """Write DIR/{config,fstab,tree,packages,files/}; what else lies in DIR stays."""
    bodies = folder / "files"
    if folder.is_symlink() or bodies.is_symlink():
        raise CommandError("E_USAGE", str(folder), "is a symlink: name the directory itself")
    try:
        bodies.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise CommandError("E_USAGE", f"-o {folder}", "is in the way: not a directory") from None
    for name, text in (
        ("packages", "".join(f"{package}\n" for package in rendered.packages)),
        ("tree", rendered.tree),
        ("fstab", rendered.fstab),
        ("config", rendered.config),
    ):
        (folder / name).write_text(text, encoding="utf-8")
    for name, body in rendered.files.items():
        (bodies / name).write_bytes(body)


def show(request: Request, console: Console) -> int:
    """Tell the options and wishes of one template."""
    spec = asked.template(request.words[0], request).spec
    console.result(_about(spec), _page(spec, console))
    return 0


def _about(spec: TemplateSpec) -> dict[str, object]:
    return {
        "name": spec.name,
        "summary": spec.summary,
        "origin": spec.origin,
        "trusted": spec.trusted,
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


def _page(spec: TemplateSpec, console: Console) -> str:
    about = _about(spec)
    rows: list[dict[str, object]] = [
        {
            "option": option.name,
            "type": option.type,
            "default": _default(option),
            "help": option.help,
        }
        for option in spec.options
    ]
    lines = [
        f"{spec.name}: {spec.summary}",
        f"origin: {spec.origin}   profile: {spec.profile}   distros: {', '.join(asked.supported(spec))}",
        *(f"packages for {key}: {', '.join(names)}" for key, names in spec.packages.items()),
        *(
            f"repository: {' '.join(each.uris)}, for {' '.join(each.only) or 'what the distribution lacks'}"
            for each in spec.repositories
        ),
        *(f"download: {each.url} to {each.to}" for each in spec.downloads),
        f"ports: {', '.join(map(str, _list(about['ports']))) or 'none'}",
        f"runs: {' '.join(spec.command) or 'nothing but its init'}"
        + (f" as {spec.service_user}" if spec.command else ""),
        *(
            f"volume {each.name}: {each.path}, of {each.owner}{each.help and f': {each.help}'}"
            for each in spec.volumes
        ),
        *(
            f"device: {each.path}{' (optional)' if each.optional else ''}{each.help and f': {each.help}'}"
            for each in spec.devices
        ),
    ]
    if rows:
        lines += ["", console.table(("option", "type", "default", "help"), rows)]
    lines += [_secret_lines(option) for option in spec.secrets]
    return "\n".join(lines)


def _secret_lines(option: Option) -> str:
    """Return how a secret is given, and how it is read where it was made."""
    name = option.name
    made = f"; made: mktemplate exec NAME -- cat /{secretfiles.MADE}/{name}" if option.made else ""
    variable = secretfiles.variable(name)
    return f"\n{name}: --secret {name}=@FILE|-|env:VAR{made}; in an exported image: {variable}"


def _list(value: object) -> list[object]:
    return list(value) if isinstance(value, list) else []


def _default(option: Option) -> str:
    value = option.default
    if option.required:
        return "(required)"
    if option.type == "secret":
        return "(made at first start)" if option.made else "(none)"
    if isinstance(value, bool):
        return "true" if value else "false"
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def distros_keyring(row: distros.Distro) -> bool:
    """Whether keys to verify the distribution with are here: shipped, or from its own package."""
    return bool(row.keyring) or any(os.path.exists(path) for path in row.keyring_files)


def list_distros(request: Request, console: Console) -> int:
    """List the distributions."""
    rows: list[dict[str, object]] = [
        {
            "name": row.name,
            "title": row.title,
            "family": row.family,
            "default_release": row.release,
            "releases": [series.name for series in row.releases],
            "architectures": sorted(set(row.arches.values())),
            "keyring": distros_keyring(row),
            "shared_host": row.shared_host,
        }
        for row in distros.DISTROS.values()
    ]
    shown = [
        {
            **row,
            "releases": ",".join(asked.words(row["releases"])),
            "keyring": "yes" if row["keyring"] else f"no: {row['name']}",
        }
        for row in rows
    ]
    console.result(rows, console.table(("name", "family", "releases", "keyring"), shown))
    return 0
