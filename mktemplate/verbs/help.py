"""`help`, `--help`, `--version`, and the bare command."""

from __future__ import annotations

from mktemplate import __version__
from mktemplate.cli import usage
from mktemplate.cli.parsing import Request
from mktemplate.console import Console
from mktemplate.errors import CommandError


def help_(request: Request, console: Console) -> int:
    """Print the overview, one verb's page, or the version; the bare command is a usage error."""
    if request.version:
        console.result({"version": __version__}, f"mktemplate {__version__}")
        return 0
    if request.flags.man:
        from mktemplate.cli.manpage import page

        console.text(page())
        return 0
    if request.help and request.verb != "help":
        console.text(usage.verb_page(request.verb))
        return 0
    if request.verb == "help" and request.words:
        console.text(usage.verb_page(request.words[0]))
        return 0
    if request.bare:
        raise CommandError(
            "E_USAGE",
            "mktemplate",
            "no verb given",
            hints=("mktemplate help", "mktemplate up sshd"),
        )
    console.text(usage.overview(request.flags.everything))
    return 0
