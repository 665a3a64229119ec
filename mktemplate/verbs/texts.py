"""`render`, `show`, `templates`, `distros`: what needs no root, no network and nothing of the host."""

from __future__ import annotations

import base64
from pathlib import Path

from mktemplate.authoring import showing
from mktemplate.cli.parsing import Request
from mktemplate.console import Console
from mktemplate.errors import CommandError
from mktemplate.making import asked
from mktemplate.template import keys, library, texts
from mktemplate.template.firststart import Fill
from mktemplate.template.plan import Rendered
from provisioner import distro as distros
from provisioner.keys import has_keyring
from valuetypes import replace


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
    """Tell how one template is used."""
    template = asked.template(request.words[0], request)
    console.result(
        showing.about(template.spec), showing.page(template.spec, _filling(template, request))
    )
    return 0


def _filling(template: library.Template, request: Request) -> Fill:
    """Return what fills in a command as it is for this host; one of a stranger's is shown as it stands."""
    if not template.spec.trusted:
        return str
    try:
        _, told = asked.understood(request)
    except CommandError:  # an option that must be given
        return str
    from mktemplate.template.rendering import filling

    return filling(template, told)


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
            "keyring": has_keyring(row),
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
