"""What trusted templates came to, kept below PATH: the same files and facts come to the same texts (see `keeping`).

A second container of a template then needs no Jinja: to load it and to render took 60 of 300 ms.
"""

from __future__ import annotations

import hashlib
import marshal
from collections.abc import Mapping
from typing import Any

from mktemplate.errors import CommandError
from mktemplate.template import library
from mktemplate.template.extending import Folder
from mktemplate.template.facts import Facts
from mktemplate.template.keeping import Kept
from mktemplate.template.plan import Plan, Rendered
from provisioner import tree as trees
from runtime.fstab import MountEntry
from valuetypes import dataclass, field, fields, replace

FOLDER = "texts"  # below PATH/.store/cache
_NAMING = frozenset(("_distro/common.config.j2",))  # what may look at a container's name …
_NAME = "\nlxc.uts.name = {}\n"  # … since this line is all that it makes of it
_NOBODY = "\0"  # in place of a name; no text holds one
_KINDS: Mapping[str, Any] = {
    kind.__name__: kind
    for kind in (
        *(trees.Directory, trees.File, trees.Fetched, trees.Link, trees.User, trees.Group),
        *(trees.Member, trees.Copy, trees.Special, trees.Adjust),
        *(Rendered, MountEntry),
    )
}


@dataclass(frozen=True, slots=True)
class Noted:
    """A folder of templates that notes what it is asked, and the hash of what it answers."""

    folder: Folder
    asked: dict[tuple[str, str], str] = field(default_factory=dict)

    @property
    def shown(self) -> str:
        """How messages call it."""
        return self.folder.shown

    def read(self, name: str) -> bytes:
        """Return the bytes of the file; raise E_TEMPLATE_PATH for what is none of its files."""
        body = self.folder.read(name)
        self.asked["file", name] = hashlib.sha256(body).hexdigest()
        return body

    def names(self, under: str) -> tuple[str, ...]:
        """Return the names in the folder `under`, sorted; empty where there is none."""
        found = self.folder.names(under)
        self.asked["names", under] = repr(found)
        return found

    def answers(self, asked: Mapping[tuple[str, str], str]) -> bool:
        """Whether what was `asked` has the same answers today."""
        try:
            for kind, name in asked:
                if kind == "file":
                    self.read(name)
                else:
                    self.names(name)
        except CommandError:  # it has gone
            return False
        return self.asked == asked


def find(place: Kept, template: library.Template, facts: Facts) -> Plan | None:
    """Return what `template` came to for `facts`, without packages; None where that is not known."""
    body = place.find(*_made_from(template, facts))
    if not body:
        return None
    own, shared, privileges, *told = marshal.loads(body)  # noqa: S302  # ours, see `keeping`
    same = Noted(template.folder).answers(own) and Noted(library.shared()).answers(shared)
    if not same:
        return None
    rendered, tree, mounts = ([_object(each) for each in rows] for rows in told)
    config = rendered[0].config.replace(_NAME.format(_NOBODY), _NAME.format(facts.name))
    return Plan(
        spec=template.spec,
        facts=facts,
        rendered=replace(rendered[0], config=config),
        tree=trees.Tree(nodes=tuple(tree), alone=facts.single_id),
        no_new_privs=privileges,
        mount_entries=tuple(mounts),
    )


def keep(
    place: Kept,
    made: Plan,
    folders: tuple[Noted, Noted],
    named: frozenset[str],
    template: library.Template,
) -> None:
    """Keep what a template came to, if no more of it than one line depends on the container's name.

    `folders`: its own and the shared one, which noted what was read; `named`: the files that looked at the name.
    """
    line = _NAME.format(made.facts.name)
    if not named <= _NAMING or made.rendered.config.count(line) != 1:
        return
    nobodys = made.rendered.config.replace(line, _NAME.format(_NOBODY))
    rendered = replace(made.rendered, packages=(), config=nobodys)
    told = ((rendered,), made.tree.nodes, made.mount_entries)
    body = marshal.dumps(
        (
            *(dict(each.asked) for each in folders),
            made.no_new_privs,
            *([_row(each) for each in values] for values in told),
        )
    )
    place.keep(body, *_made_from(template, made.facts))


def _made_from(template: library.Template, facts: Facts) -> tuple[object, ...]:
    """Return what decides about the texts, beside the files that were read; a set has another order each time."""
    others = replace(facts, name="", granted=frozenset())
    return (template.spec, others, sorted(facts.granted))


def _row(value: Any) -> tuple[str, dict[str, Any]]:  # noqa: ANN401  # of one of _KINDS
    """Return a value as what marshal(3) takes."""
    told = {each.name: getattr(value, each.name) for each in fields(value)}
    return type(value).__name__, told


def _object(row: tuple[str, dict[str, Any]]) -> Any:  # noqa: ANN401  # one of _KINDS
    kind, told = row
    return _KINDS[kind](**told)
