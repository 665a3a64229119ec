"""The texts of a template, read back by who will read them: what a template adds to the common configuration is bound.

What the common part confines, it may not take back (security.md 2.4).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from mktemplate.errors import CommandError
from mktemplate.template import facts as facts_
from mktemplate.template import grants, library
from mktemplate.template.facts import Facts
from mktemplate.template.plan import Rendered
from mktemplate.template.spec import TemplateSpec
from mktemplate.template.whence import told_of
from provisioner import tree as trees
from provisioner.tree import Tree
from runtime import config as configs
from runtime import fstab as fstabs
from runtime.errors import ConfigError
from runtime.grants import check_grants
from runtime.readers import rlimit
from runtime.settings import UNLIMITED, ContainerConfig

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


def tree(spec: TemplateSpec, facts: Facts, rendered: Rendered) -> Tree:
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


def sources(spec: TemplateSpec, facts: Facts) -> fstabs.Sources:
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


def config(template: library.Template, facts: Facts, text: str, plain: str) -> ContainerConfig:
    """Return what the configuration `text` says, if the template kept to its part of it; `plain`: the common part."""
    name = template.spec.name
    with told_of(template.folder, name, "config.j2", text):
        lines = configs.read(text, "config")[0]
        check_grants([line for line in lines if line.key == "lxc.include"])  # before it is followed
        parsed = configs.parse(text, "config")
    common = Counter((line.key, line.value) for line in configs.read(plain, "common")[0])
    left = common.copy()
    added = []
    for line in lines:
        if left[(line.key, line.value)] > 0:
            left[(line.key, line.value)] -= 1
        else:
            added.append(line)
    with told_of(template.folder, name, "config.j2", text):
        check_grants(added, sources(template.spec, facts))
        _check_limits([line for line in added if line.key.startswith(_LIMIT)], plain)
    for key, value in left.elements():
        if key not in _REPLACEABLE:
            raise CommandError(
                "E_CONFIG_GRANT", "config", f"{key} = {value} may not be left out by a template"
            )
    configs.render([(line.key, line.value) for line in lines])  # raises what would not read back
    return parsed
