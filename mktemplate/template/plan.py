"""What a template came to: the texts of one container, and what was read back from them."""

from __future__ import annotations

from collections.abc import Mapping

from mktemplate.template.facts import Facts
from mktemplate.template.spec import TemplateSpec
from provisioner.tree import Tree
from runtime.fstab import MountEntry
from valuetypes import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendered:
    """The texts of one container, as rendered."""

    packages: tuple[str, ...] = ()
    tree: str
    fstab: str
    config: str
    files: Mapping[str, bytes]  # the bodies that the tree names
    ready: str = ""  # the command of the readiness check
    connect: str = ""  # how a person reaches it, {name} and {address} still to be filled in
    programs: tuple[str, ...] = ()  # what the service and its first start execute


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A Rendered whose every text was read back by its consumer."""

    spec: TemplateSpec
    facts: Facts
    rendered: Rendered
    tree: Tree
    no_new_privs: bool
    mount_entries: tuple[MountEntry, ...]  # of the configuration, not the fstab
