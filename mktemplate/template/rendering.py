"""A template and its facts → the texts that a container is made of, by Jinja.

What reads them back is `mktemplate.template.texts`.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from functools import cache
from typing import cast

from jinja2 import BytecodeCache

from mktemplate.errors import CommandError
from mktemplate.template import facts as facts_
from mktemplate.template import firststart, held, jail, library, secretfiles
from mktemplate.template.extending import Folder
from mktemplate.template.facts import Facts
from mktemplate.template.plan import Rendered
from mktemplate.template.render import Renderer, renderer
from mktemplate.template.render import Value as Told
from mktemplate.template.spec import TemplateSpec
from mktemplate.template.whence import told_of
from provisioner import tree as trees
from valuetypes import dataclass

_LOW = 1024  # ip(7): ports below are root's, or of who has CAP_NET_BIND_SERVICE
_BIN = ("/usr/bin/", "/usr/sbin/", "/bin/", "/sbin/")


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """What Jinja made of a template."""

    rendered: Rendered
    common: str  # the configuration that each container of the distribution has
    named: frozenset[str] = frozenset()  # the files that looked at the container's name


def render(
    template: library.Template,
    facts: Facts,
    compiled: BytecodeCache | None = None,
    shared: Folder | None = None,
) -> Made:
    """Return the texts of `template` for `facts`, without its packages; `compiled` keeps the code of trusted ones.

    `shared`: what came with mktemplate, where it is not to be read from its place.
    """
    own = shared or library.shared()
    common = f"_distro/{facts.target.distro}.config.j2"
    if template.spec.trusted:
        jinja = _renderer(template, facts, own, compiled)
        made, files = _render(template, facts, jinja, own)
        plain = jinja.file(common)
        named = frozenset(jinja.environment.named)
    else:
        mine, theirs = held.held(template), held.shared()
        made, files = jail.confined(
            lambda: _render(mine, facts, _renderer(mine, facts, theirs), theirs), mine.spec.name
        )
        plain = _renderer(template, facts, own, compiled).file(common)
        named = frozenset()
    rendered = Rendered(
        tree=made["tree"],
        fstab=made["fstab"],
        config=made["config"],
        files=dict(sorted(files.items())),
        ready=made["ready"],
        connect=made["connect"],
        programs=tuple(shlex.split(made["programs"])),
    )
    return Made(rendered=rendered, common=plain, named=named)


def _renderer(
    template: library.Template, facts: Facts, shared: Folder, compiled: BytecodeCache | None = None
) -> Renderer:
    values = cast("dict[str, Told]", facts_.values(template.spec, facts))
    return renderer(template.folder, template.spec.name, values, compiled, shared)


def _render(
    template: library.Template, facts: Facts, jinja: Renderer, shared: Folder
) -> tuple[dict[str, str], dict[str, bytes]]:
    """Return the texts by name, and the bodies."""
    spec = template.spec
    tree = jinja.file("tree.j2")
    files = _bodies(template, facts, jinja)
    with told_of(template.folder, spec.name, "tree.j2", tree):
        bodies = {**files, "init": b"", "reaper": b""}
        drafted = trees.parse(tree, bodies, f"{spec.name}/tree.j2")
    low_ports = any(facts_.port(each, facts) < _LOW for each in spec.ports)
    fill = _filling(spec, jinja)
    files["init"] = _init(spec, drafted, jinja, fill, low_ports=low_ports).encode()
    if jinja.values["reaper"]:
        files["reaper"] = shared.read(f"_init/reaper.{facts_.REAPERS[facts.target.arch]}")
    of_host = "shared-program" if spec.static else "shared-host"
    mounts = f"{of_host if facts.shared_host else 'provisioned'}.fstab.j2"
    made = {
        "tree": tree,
        "fstab": jinja.file(f"fstabs/{mounts}"),
        "config": jinja.file("config.j2"),
        "ready": fill(spec.ready.command),
        "connect": fill(spec.connect),
        "programs": shlex.join(_programs(spec, fill)),
    }
    return made, files


def filling(template: library.Template, facts: Facts) -> firststart.Fill:
    """Return what fills in the words of template.toml for `facts`."""
    return _filling(template.spec, _renderer(template, facts, library.shared()))


def _programs(spec: TemplateSpec, fill: firststart.Fill) -> Iterator[str]:
    """Yield what the service and its first start execute: first words, and what a script of theirs is handed."""
    for argv in (spec.command, *(step.run for step in _steps(spec, fill))):
        words = [fill(word) for word in argv]
        yield from (word for word in words if word in words[:1] or word.startswith(_BIN))


def _steps(spec: TemplateSpec, fill: firststart.Fill) -> tuple[firststart.Step, ...]:
    """Return the steps of the first start: one whose program renders to nothing is not wanted."""
    return tuple(step for step in spec.first_start if fill(step.run[0]))


def _filling(spec: TemplateSpec, jinja: Renderer) -> firststart.Fill:
    """Return what fills in the words of template.toml that a container executes."""

    @cache
    def fill(word: str) -> str:
        if "{{" not in word and "{%" not in word:
            return word
        return jinja.text(word, f"{spec.name}/template.toml")

    return fill


def _bodies(template: library.Template, facts: Facts, jinja: Renderer) -> dict[str, bytes]:
    bodies = {
        name.removesuffix(".j2"): jinja.file(f"files/{name}").encode()
        for name in template.folder.names("files")
        if name.endswith(".j2")
    }
    if template.spec.login_keys:
        bodies["authorized_keys"] = "".join(f"{key}\n" for key in facts.keys).encode()
    return bodies


def _init(
    spec: TemplateSpec, tree: trees.Tree, jinja: Renderer, fill: firststart.Fill, *, low_ports: bool
) -> str:
    """Return the text of the container's PID 1; `low_ports`: the service listens where not everybody may."""
    folder = jinja.values["init_folder"]
    command = shlex.join(map(fill, spec.command))
    static = bool(spec.static)

    def becomes(words: str, rights: str = "-all") -> str:
        if spec.service_user == "root":
            return f"exec {words}"
        return firststart.as_user(spec.service_user, words, static=static, rights=rights)

    listening = ""
    if spec.sockets == "systemd" and jinja.values["reaper"]:
        child = f"LISTEN_PID=$$; export LISTEN_PID; {becomes(command)}"
        listening = f"exec {folder}/reaper /bin/sh -c {shlex.quote(child)}"
    if not spec.init_safe:
        if not jinja.values["reaper"]:
            raise CommandError(
                "E_USAGE", spec.name, "is not init_safe, and this architecture has no reaper"
            )
        command = f"{folder}/reaper {command}".rstrip()
    keeps = low_ports and spec.service_user != "root" and not static
    return jinja.file(
        "_init/init.j2",
        starts=[line for node in tree.volatile for line in _at_start(node)],
        secrets=[
            {"name": secret.name, "variable": secretfiles.variable(secret.name)}
            for secret in spec.secrets
        ],
        steps=[
            firststart.shell(step, spec.option(step.secret), fill, static=static)
            for step in _steps(spec, fill)
        ],
        keeps_low_ports=keeps,
        command=becomes(command, "$rights" if keeps else "-all"),
        listening=listening,
    )


def _at_start(node: trees.Placed) -> tuple[str, ...]:
    """Return the shell lines that make a node below /run or /tmp, which are empty at each start."""
    word = shlex.quote(node.path)
    if isinstance(node, trees.Link):
        return (f"ln -sfn {shlex.quote(node.target)} {word}",)
    if isinstance(node, trees.Directory):
        lines = [f"mkdir -p -m {node.mode:04o} {word}"]
    elif isinstance(node, trees.File):
        body = node.body.decode("utf-8", "strict")
        lines = [f"printf %s {shlex.quote(body)} >{word}", f"chmod {node.mode:04o} {word}"]
    else:
        raise CommandError(
            "E_TEMPLATE_SYNTAX", node.path, "only d, f and L lines may stand below /run and /tmp"
        )
    if (node.user, node.group) != ("root", "root"):
        lines.append(f"chown {shlex.quote(f'{node.user}:{node.group}')} {word}")
    return tuple(lines)
