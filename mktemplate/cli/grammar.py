"""Every verb of the command line, as rows of a table (cli.md). No behaviour, no parsing."""

from __future__ import annotations

from mktemplate.cli import arguments
from mktemplate.cli.authorverbs import AUTHOR
from mktemplate.cli.imageverbs import IMAGES
from mktemplate.cli.lifeverbs import IDLE, LIFE
from mktemplate.cli.options import BUILD, FROM, RENDER, START, Option, flag, lines, seconds, value
from mktemplate.cli.shipverbs import SHIP
from mktemplate.cli.verb import Verb

_TIMEOUT = value("--timeout", "S", "timeout", "seconds to wait", convert=seconds)
_FORCE = flag("--force", "force", "stop it first")
_OUTPUT = value("-o", "DIR", "output", "write the texts into this directory")
_INSIDE = (
    value("--user", "U", "user", "user inside (default: root)"),
    value("--cwd", "D", "cwd", "working directory inside"),
    value("--env", "K=V", "env", "set a variable", convert=arguments.environment, many=True),
    Option(names=("-t",), field="tty", help="give it a terminal"),
)
_UP_MORE = "An existing container keeps its options; what differs is named. Repeating `up` is safe and fast."

VERBS = (
    Verb(
        name="up",
        usage="TEMPLATE [NAME] [OPTIONS]",
        help="create if absent, start if stopped, wait until ready, say how to reach it",
        more=_UP_MORE,
        least=1,
        most=2,
        options=(*BUILD, _TIMEOUT),
        everyday=True,
    ),
    Verb(
        name="create",
        usage="TEMPLATE [NAME] [OPTIONS]",
        help="make a container, do not start it",
        more="All or nothing: after a failure nothing half-made is left.",
        least=1,
        most=2,
        options=BUILD + START,
        everyday=True,
    ),
    Verb(
        name="start",
        usage="NAME…",
        help="start stopped containers",
        more="--print shows every system call instead of making it.",
        least=1,
        options=(
            flag("--print", "print", "show every system call with its reason; start nothing"),
            flag("--foreground", "foreground", "wait; the exit status is that of its PID 1"),
            IDLE,
        ),
        everyday=True,
    ),
    Verb(
        name="stop",
        usage="NAME…",
        help="ask containers to stop, then kill them",
        least=1,
        options=(_TIMEOUT,),
        everyday=True,
    ),
    Verb(name="restart", usage="NAME…", help="stop, then start", least=1, options=(_TIMEOUT,)),
    Verb(name="kill", usage="NAME [SIGNAL]", help="send a signal (KILL)", least=1, most=2),
    Verb(name="freeze", usage="NAME…", help="suspend every process of a container", least=1),
    Verb(name="unfreeze", usage="NAME…", help="let a frozen container go on", least=1),
    Verb(
        name="wait",
        usage="NAME --state S",
        help="wait for RUNNING, STOPPED, FROZEN or READY",
        least=1,
        most=1,
        options=(
            value(
                "--state",
                "S",
                "state",
                "the state to wait for",
                choices=("RUNNING", "STOPPED", "FROZEN", "READY"),
            ),
            _TIMEOUT,
        ),
    ),
    Verb(
        name="run",
        usage="TEMPLATE|NAME -- CMD…",
        help="one command in a container of its own that is gone afterwards",
        least=1,
        most=1,
        options=(*BUILD, Option(names=("-t",), field="tty", help="give it a terminal")),
        command=True,
        everyday=True,
    ),
    Verb(
        name="exec",
        usage="[--user U] [--cwd D] [--env K=V] NAME -- CMD…",
        help="run a command inside a running container",
        least=1,
        options=_INSIDE,
        command=True,
        everyday=True,
    ),
    Verb(
        name="shell",
        usage="NAME",
        help="a login shell inside",
        least=1,
        most=1,
        options=_INSIDE[:3],
        everyday=True,
    ),
    Verb(
        name="ssh",
        usage="NAME [CMD…]",
        help="log in over ssh, with the keys we made: no question asked",
        least=1,
        options=(value("--user", "U", "user", "user inside (default: the template's)"),),
        command=True,
        everyday=True,
    ),
    Verb(
        name="logs",
        usage="NAME [-f] [-n N]",
        help="what the service wrote",
        least=1,
        most=1,
        options=(
            Option(names=("-f",), field="follow", help="go on as it grows"),
            value("-n", "N", "lines", "the last N lines", convert=lines),
        ),
        everyday=True,
    ),
    Verb(name="list", usage="", help="containers and their states", most=0, everyday=True),
    Verb(
        name="info",
        usage="NAME",
        help="everything about one container",
        least=1,
        most=1,
        options=(flag("--isolation", "isolation", "what is forbidden inside, found by trying"),),
        everyday=True,
    ),
    Verb(
        name="destroy",
        usage="NAME…",
        help="remove containers, with what they wrote and their volumes",
        more="A directory that --volume gave is the caller's: it stays.",
        least=1,
        options=(_FORCE,),
        everyday=True,
    ),
    Verb(
        name="render",
        usage="TEMPLATE [NAME] [OPTIONS]",
        help="print the texts: no root, no network, no host facts",
        more="-o DIR writes DIR/{config,fstab,tree,packages,files/}.",
        least=1,
        most=2,
        options=(*RENDER, _OUTPUT),
        everyday=True,
    ),
    Verb(
        name="plan",
        usage="TEMPLATE [NAME] [OPTIONS]",
        help="resolve the packages; change nothing",
        least=1,
        most=2,
        options=BUILD,
    ),
    *AUTHOR,
    Verb(name="distros", usage="", help="list distributions", most=0),
    Verb(
        name="config",
        usage="NAME get|set|unset|show KEY [VALUE]",
        help="read or change the LXC config of a container",
        least=2,
        most=4,
    ),
    Verb(
        name="lock",
        usage="NAME [-o FILE] | --update FILE | --check FILE | --fetch DIR FILE",
        help="the exact package set with its hashes, as a text",
        more="create --lock FILE makes exactly that again. --check exits 1 when there is something newer.",
        least=1,
        most=1,
        options=(
            value("-o", "FILE", "output", "write it into this file"),
            flag("--update", "update", "bring the lock FILE up to date; say what changed and why"),
            flag("--check", "check", "only say what --update would change"),
            value("--fetch", "DIR", "fetch", "keep the archives of the lock FILE in DIR beside it"),
            *FROM,
        ),
    ),
    *SHIP,
    Verb(
        name="diff",
        usage="NAME",
        help="what a container changed of its layers: A added, M modified, D deleted",
        least=1,
        most=1,
    ),
    Verb(
        name="outdated",
        usage="[NAME…]",
        help="whose packages have newer versions; security updates are marked",
        more="Exits 1 when there is something. --offline asks the index that was fetched last.",
        options=FROM,
    ),
    Verb(
        name="upgrade",
        usage="NAME… [OPTIONS]",
        help="today's packages under a new upper; volumes, secrets, identities and address stay",
        more="What else it wrote is named. Not ready in time: the old one runs again, exit 9. Undo: rollback.",
        least=1,
        options=(*FROM, _TIMEOUT, flag("--dry-run", "dry_run", "only say what would change")),
        everyday=True,
    ),
    Verb(
        name="rollback",
        usage="NAME",
        help="back to what ran before the last upgrade; given again, forth",
        more="Volumes stay as they are: what a newer program wrote there, the older one finds.",
        least=1,
        most=1,
        options=(_TIMEOUT,),
    ),
    Verb(
        name="why",
        usage="NAME PACKAGE",
        help="what brought a package in, and the repository it came from",
        least=2,
        most=2,
    ),
    Verb(
        name="trust",
        usage="list|accept SUITE",
        help="which keys vouch for each source; accept a changed Origin, Label or Codename",
        least=1,
        most=2,
    ),
    Verb(
        name="store",
        usage="verify",
        help="hash every layer and download again; put aside what is damaged",
        least=1,
        most=1,
    ),
    Verb(
        name="prune",
        usage="",
        help="drop layers, downloads and warm snapshots that nothing uses",
        most=0,
        options=(
            flag("--layers", "layers", "only layers, and the warm snapshots upon them"),
            flag("--downloads", "downloads", "only downloads"),
            flag("--dry-run", "dry_run", "only say what it would free"),
        ),
    ),
    *LIFE,
    *IMAGES,
    Verb(name="doctor", usage="", help="what this host can do, found by trying", most=0),
    Verb(
        name="help",
        usage="[VERB]",
        help="explain a verb",
        most=1,
        options=(
            flag("--all", "everything", "all verbs, not only the everyday ones"),
            flag("--man", "man", "the whole as a man page (roff)"),
        ),
    ),
)
BY_NAME = {verb.name: verb for verb in VERBS}
# What people type who come from docker, podman, incus, lxc or systemctl.
ELSEWHERE = {
    "rm": "destroy", "delete": "destroy", "remove": "destroy", "images": "templates", "image": "templates",
    "attach": "shell", "enter": "shell", "inspect": "info", "status": "info", "pause": "freeze", "unpause": "unfreeze",
    "load": "import", "save": "export", "launch": "up", "build": "new", "stats": "top", "history": "diff",
    "clone": "copy", "execute": "run", "update": "upgrade", "move": "rename", "mv": "rename", "search": "templates",
    "init": "create", "version": "--version",
}  # fmt: skip
ALIASES = {"ls": "list", "ps": "list"}
RESERVED = frozenset((*BY_NAME, *ALIASES))  # no template may bear such a name
