"""One function per verb, each a straight line. Only the asked one's module is imported: `start` needs no Jinja."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Protocol, cast

if TYPE_CHECKING:
    from mktemplate.cli.parsing import Request
    from mktemplate.console import Console


class Perform(Protocol):
    """A verb: does what the request says, prints its results, returns the exit status."""

    def __call__(self, request: Request, console: Console) -> int:
        """Perform the verb."""
        ...


_MODULES = {
    "create": ("create", "create"),
    "up": ("up", "up"),
    "run": ("up", "run"),
    "plan": ("plan", "plan"),
    "start": ("life", "start"),
    "stop": ("life", "stop"),
    "restart": ("life", "restart"),
    "kill": ("life", "kill"),
    "freeze": ("life", "freeze"),
    "unfreeze": ("life", "unfreeze"),
    "wait": ("life", "wait"),
    "destroy": ("life", "destroy"),
    "copy": ("copies", "copy"),
    "rename": ("copies", "rename"),
    "snapshot": ("copies", "snapshot"),
    "cp": ("cp", "copy_files"),
    "top": ("top", "top"),
    "console": ("inside", "at_console"),
    "autostart": ("boot", "autostart"),
    "unit": ("unit", "unit"),
    "adopt": ("adopt", "adopt"),
    "compose": ("compose", "compose"),
    "completion": ("completion", "completion"),
    "exec": ("inside", "execute"),
    "shell": ("inside", "shell"),
    "ssh": ("inside", "ssh"),
    "logs": ("look", "logs"),
    "list": ("look", "list_all"),
    "info": ("look", "info"),
    "render": ("texts", "render"),
    "templates": ("templates", "templates"),
    "new": ("new", "new"),
    "test-template": ("trying", "test_template"),
    "show": ("texts", "show"),
    "distros": ("texts", "list_distros"),
    "check": ("check", "check"),
    "config": ("check", "config"),
    "lock": ("lock", "lock"),
    "export": ("export", "export"),
    "push": ("push", "push"),
    "diff": ("diff", "diff"),
    "why": ("packages", "why"),
    "outdated": ("packages", "outdated"),
    "upgrade": ("upgrade", "upgrade"),
    "rollback": ("upgrade", "rollback"),
    "trust": ("trust", "trust"),
    "store": ("store", "store"),
    "prune": ("store", "prune"),
    "import": ("image", "import_"),
    "pull": ("image", "pull"),
    "sbom": ("sbom", "sbom"),
    "doctor": ("doctor", "doctor"),
    "help": ("help", "help_"),
}


def perform(request: Request, console: Console) -> int:
    """Perform the request's verb, or explain it."""
    verb = "help" if request.help or request.version else request.verb
    module, name = _MODULES[verb]
    function = cast("Perform", getattr(import_module(f"mktemplate.verbs.{module}"), name))
    return function(request, console)
