"""The verbs about templates themselves, as rows of a table (cli.md). No behaviour, no parsing."""

from __future__ import annotations

from mktemplate.cli.options import BUILD, FROM, GRANT, WHAT, flag, value
from mktemplate.cli.verb import Verb

_WHICH = tuple(option for option in WHAT if option.field in ("distro", "release", "arch"))

AUTHOR = (
    Verb(
        name="templates",
        usage="[add SOURCE [NAME…] | update NAME… | remove NAME…]",
        help="list templates; bring in someone else's, bring it up to date or remove it",
        more=(
            "SOURCE is a folder, a tar (.tar, .tar.gz, .tar.xz, .tar.zst; a file or an http address) or what git\n"
            "clones, with #BRANCH or #TAG where it is not the newest. What it holds is checked, and is not trusted:\n"
            "beyond files and packages it gets what --grant names, here for good or at each `up`. --pin is the\n"
            "SHA-256 of the tar, or the one of its files that `add` prints. `update` fetches again from where it\n"
            "came; files that changed keep what was granted only where --pin names them."
        ),
        options=(
            value("--pin", "SHA256", "pin", "add, update: refuse anything but what has this hash"),
            value("--as", "NAME", "rename", "add: call the one template that SOURCE holds so"),
            flag("--force", "force", "add: take the place of one that was added before"),
            GRANT,
        ),
        everyday=True,
    ),
    Verb(
        name="show",
        usage="TEMPLATE",
        help="how a template is used: options, ports, data, secrets, examples",
        least=1,
        most=1,
        everyday=True,
    ),
    Verb(
        name="new",
        usage="NAME [DIR]",
        help="write a commented template to begin with: DIR/NAME, by default ./NAME",
        more="It works as it is: check it, test-template it, then put your service in the place of its own.",
        least=1,
        most=2,
    ),
    Verb(
        name="check",
        usage="FILE|DIR…",
        help="check a template, an fstab or an LXC config",
        more=(
            "DIR is a template: it is rendered for every distribution and release that it names, or for those that\n"
            "--distro and --release ask for. --online asks their verified indexes whether its packages are there."
        ),
        least=1,
        options=(
            flag("--strict", "strict", "warnings are errors"),
            flag("--online", "online", "resolve a template's packages, too"),
            *_WHICH,
            *FROM,
        ),
    ),
    Verb(
        name="test-template",
        usage="DIR|TEMPLATE [OPTIONS]",
        help="start a container of a template, run its tests.toml, destroy it",
        more=(
            "Exits 1 where a test fails. Tests that run commands on the host are the template's author's: those of a\n"
            "template that is not trusted are run with --grant run:host only."
        ),
        least=1,
        most=1,
        options=(
            *BUILD,
            flag("--keep", "keep", "keep the container of a failed test, and say which"),
        ),
    ),
)
