"""One template and its facts → the texts that a container is made of, checked by who will read them.

Each text is rendered and at once parsed by the module that consumes it: a wrong template is found before the first
byte is downloaded. What a template adds to the common configuration is bound by security.md 2.4; what the common
part confines, it may not take back.
"""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import cast

from jinja2 import BytecodeCache

from mktemplate.errors import CommandError
from mktemplate.template import facts as facts_
from mktemplate.template import firststart, grants, held, jail, library, secretfiles
from mktemplate.template.compiled import kept
from mktemplate.template.extending import Folder
from mktemplate.template.facts import Facts
from mktemplate.template.render import Renderer, renderer
from mktemplate.template.render import Value as Told
from mktemplate.template.spec import TemplateSpec
from mktemplate.template.whence import told_of
from provisioner import tree as trees
from provisioner.tree import Tree
from runtime import config as configs
from runtime import fstab as fstabs
from runtime.errors import ConfigError
from runtime.fstab import MountEntry
from runtime.grants import check_grants
from runtime.readers import rlimit
from runtime.settings import UNLIMITED, ContainerConfig
from valuetypes import dataclass

_LIMIT = "lxc.prlimit."
# A template may write these again with another value; of every other common line it may not lose one.
_REPLACEABLE = frozenset(
    (
        "lxc.signal.halt",
        "lxc.cgroup2.pids.max",
        "lxc.cgroup2.memory.max",
        "lxc.cgroup2.memory.oom.group",
        "lxc.cgroup2.cpu.weight",
    )
)

_LOW = 1024  # ip(7): ports below are root's, or of who has CAP_NET_BIND_SERVICE


_BIN = ("/usr/bin/", "/usr/sbin/", "/bin/", "/sbin/")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendered:
    """The texts of one container, as rendered."""

    packages: tuple[str, ...]
    tree: str
    fstab: str
    config: str
    files: Mapping[str, bytes]  # the bodies that the tree names
    ready: str = ""  # the command of the readiness check
    connect: str = ""  # how a person reaches it, {address} still to be filled in
    programs: tuple[str, ...] = ()  # what the service and its first start execute


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A Rendered whose every text was read back by its consumer."""

    spec: TemplateSpec
    facts: Facts
    rendered: Rendered
    tree: trees.Tree
    mounts: tuple[MountEntry, ...]
    config: ContainerConfig


def render(
    template: library.Template,
    facts: Facts,
    more: tuple[str, ...] = (),
    compiled: BytecodeCache | None = None,
) -> Rendered:
    """Return the texts of `template` for `facts`; `more` packages are added."""
    if template.spec.trusted:
        made, files = _render(template, facts, compiled)
    else:
        mine, theirs = held.held(template), held.shared()
        made, files = jail.confined(lambda: _render(mine, facts, shared=theirs), mine.spec.name)
    return Rendered(
        packages=facts_.packages(template.spec, facts, more),
        tree=made["tree"],
        fstab=made["fstab"],
        config=made["config"],
        files=dict(sorted(files.items())),
        ready=made["ready"],
        connect=made["connect"],
        programs=tuple(shlex.split(made["programs"])),
    )


def _render(
    template: library.Template,
    facts: Facts,
    compiled: BytecodeCache | None = None,
    shared: Folder | None = None,
) -> tuple[dict[str, str], dict[str, bytes]]:
    """Return the texts by name, and the bodies."""
    spec = template.spec
    shared = shared or library.shared()
    values = cast("dict[str, Told]", facts_.values(spec, facts))
    jinja = renderer(template.folder, spec.name, values, compiled, shared)
    tree = jinja.file("tree.j2")
    files = _bodies(template, facts, jinja)
    with told_of(template.folder, spec.name, "tree.j2", tree):
        bodies = {**files, "init": b"", "reaper": b""}
        drafted = trees.parse(tree, bodies, f"{spec.name}/tree.j2")
    low_ports = any(facts_.port(each, facts) < _LOW for each in spec.ports)
    fill = _filling(spec, jinja)
    files["init"] = _init(spec, drafted, jinja, fill, low_ports=low_ports).encode()
    if values["reaper"]:
        files["reaper"] = shared.read(f"_init/reaper.{facts_.REAPERS[facts.target.arch]}")
    of_host = "shared-program" if spec.static else "shared-host"
    mounts = f"{of_host if facts.shared_host else 'provisioned'}.fstab.j2"
    fstab = jinja.file(f"fstabs/{mounts}")
    made = {
        "tree": tree,
        "fstab": fstab,
        "config": jinja.file("config.j2"),
        "ready": fill(spec.ready.command),
        "connect": fill(spec.connect).replace("{name}", facts.name),
        "programs": shlex.join(_programs(spec, fill)),
    }
    return made, files


def filling(template: library.Template, facts: Facts) -> firststart.Fill:
    """Return what fills in the words of template.toml for `facts`."""
    values = cast("dict[str, Told]", facts_.values(template.spec, facts))
    return _filling(template.spec, renderer(template.folder, template.spec.name, values))


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


def plan(
    template: library.Template,
    facts: Facts,
    more: tuple[str, ...] = (),
    cache: Path | None = None,
) -> Plan:
    """Return the rendered texts of `template`, read back; raise what is wrong in them, with file and line.

    Below `cache` is kept what Jinja makes of templates that are trusted.
    """
    compiled = kept(cache) if cache else None
    rendered = render(template, facts, more, compiled)
    return Plan(
        spec=template.spec,
        facts=facts,
        rendered=rendered,
        tree=_tree(template.spec, facts, rendered),
        mounts=fstabs.parse(
            rendered.fstab,
            "fstab",
            from_template=True,
            sources=_sources(template.spec, facts),
        ),
        config=_checked_config(template, facts, rendered.config, compiled),
    )


def _tree(spec: TemplateSpec, facts: Facts, rendered: Rendered) -> Tree:
    """Return the tree of the texts, with what the template takes from elsewhere behind it."""
    told = trees.parse(rendered.tree, rendered.files, f"{spec.name}/tree.j2")
    fetched = (
        trees.Fetched(
            path=each.to, sha256=each.sha256, url=each.url, mode=each.mode, user=each.owner, group=each.group
        )
        for each in spec.downloads
        if facts_.is_meant(each.distros, facts.target) and each.arch in ("", facts.target.arch)
    )  # fmt: skip
    program = trees.Fetched(
        path=spec.static, sha256=facts.program, url=f"file://{spec.static}", mode=0o755
    )
    nodes = (*told.nodes, *fetched, *((program,) if facts.program else ()))
    return Tree(nodes=nodes, alone=facts.single_id)


def _sources(spec: TemplateSpec, facts: Facts) -> fstabs.Sources:
    """Return which paths of the host a template may mount: one that is not trusted only what was granted."""
    if facts.shared_host:
        return fstabs.Sources(read_only=(spec.static,)) if spec.static else fstabs.SHARED_HOST
    granted = grants.paths(facts.granted)
    if not spec.trusted:
        return fstabs.Sources(any=granted)
    return fstabs.Sources(any=(*fstabs.Sources().any, *granted))


def _check_limits(limits: Sequence[configs.Line], plain: str) -> None:
    """Raise E_CONFIG_GRANT for a resource limit above that of the common text `plain`: a template only lowers them."""
    if not limits:
        return
    most = {limit.name: limit.hard for limit in configs.parse(plain, "common").rlimits}
    for line in limits:
        hard = most.get(line.key.removeprefix(_LIMIT), UNLIMITED)
        asked = rlimit(line.key.removeprefix(_LIMIT), line.value).hard
        if hard != UNLIMITED and (asked == UNLIMITED or asked > hard):
            raise ConfigError(
                "E_CONFIG_GRANT",
                f"{line.source}:{line.line}",
                f"{line.key} may not be above {hard} in a template",
                path=line.source,
                line=line.line,
            )


def _checked_config(
    template: library.Template, facts: Facts, text: str, compiled: BytecodeCache | None
) -> ContainerConfig:
    """Return what `text` says, if the template kept to its part of it."""
    name = template.spec.name
    with told_of(template.folder, name, "config.j2", text):
        lines = configs.read(text, "config")[0]
        check_grants([line for line in lines if line.key == "lxc.include"])  # before it is followed
        parsed = configs.parse(text, "config")
    values = cast("dict[str, Told]", facts_.values(template.spec, facts))
    plain = renderer(library.built_in(), "common", values, compiled).file(
        f"_distro/{facts.target.distro}.config.j2"
    )
    common = Counter((line.key, line.value) for line in configs.read(plain, "common")[0])
    left = common.copy()
    added = []
    for line in lines:
        if left[(line.key, line.value)] > 0:
            left[(line.key, line.value)] -= 1
        else:
            added.append(line)
    with told_of(template.folder, name, "config.j2", text):
        check_grants(added, _sources(template.spec, facts))
        _check_limits([line for line in added if line.key.startswith(_LIMIT)], plain)
    for key, value in left.elements():
        if key not in _REPLACEABLE:
            raise CommandError(
                "E_CONFIG_GRANT", "config", f"{key} = {value} may not be left out by a template"
            )
    configs.render([(line.key, line.value) for line in lines])  # raises what would not read back
    return parsed
