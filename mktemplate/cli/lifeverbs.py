"""The verbs of a container's life beyond start and stop, as rows of a table (cli.md). No behaviour, no parsing."""

from __future__ import annotations

from mktemplate.cli.arguments import control_key, duration
from mktemplate.cli.options import flag, seconds, value
from mktemplate.cli.verb import Verb

IDLE = value(
    "--idle", "TIME", "idle", "stop when nobody was connected for 90s, 10m, 2h", convert=duration
)
LIFE = (
    Verb(
        name="copy",
        usage="NAME NEW",
        help="a container like it, with ids, address and identities of its own",
        more="Layers are shared, volumes copied. A running container stands still while it is copied.",
        least=2,
        most=2,
    ),
    Verb(
        name="rename",
        usage="NAME NEW",
        help="give a stopped container another name; its address stays",
        least=2,
        most=2,
    ),
    Verb(
        name="snapshot",
        usage="NAME create|list|restore|delete [SNAP]",
        help="keep a container as it is, go back to it",
        more="Layers are shared, volumes kept along; restore needs a stopped container and keeps the snapshot.",
        least=2,
        most=3,
    ),
    Verb(
        name="cp",
        usage="SRC DST",
        help="copy files in or out: NAME:PATH on either side",
        least=2,
        most=2,
        options=(value("--owner", "USER", "owner", "whose the copy is, by a name inside"),),
    ),
    Verb(name="top", usage="", help="live usage", most=0),
    Verb(
        name="console",
        usage="NAME",
        help="be at the container's /dev/console",
        more="Ctrl-a q leaves it, Ctrl-a Ctrl-a types one Ctrl-a. It has a console unless lxc.console.path is none.",
        least=1,
        most=1,
        options=(
            value(
                "-e", "KEY", "escape", "the key before q: a letter with Ctrl", convert=control_key
            ),
        ),
    ),
    Verb(
        name="autostart",
        usage="",
        help="start what is marked lxc.start.auto, in lxc.start.order",
        most=0,
        options=(flag("--stop", "stop", "stop it instead, in the opposite order"),),
    ),
    Verb(
        name="unit",
        usage="NAME [--socket [--idle TIME]] [-o DIR]",
        help="print a systemd unit for a container",
        more="--socket: systemd listens on the published ports; the first connection starts the container, and its "
        "service is given the sockets and sees its clients' own addresses. Until then nothing of it runs.",
        least=1,
        most=1,
        options=(
            flag("--socket", "socket", "a socket unit, too: start at the first connection"),
            IDLE,
            value("-o", "DIR", "output", "write the units into this directory"),
        ),
    ),
    Verb(
        name="adopt",
        usage="DIR",
        help="take an existing LXC container directory as it is",
        least=1,
        most=1,
    ),
    Verb(
        name="compose",
        usage="up|down|ps FILE [--timeout S] [--destroy]",
        help="several containers from one file",
        more=(
            "up makes and starts what FILE asks for, each service once those that it depends on are ready;\n"
            "down stops it, the last one first, and keeps data; ps lists it. FILE is TOML: tables\n"
            "[services.NAME] with template, depends_on and the options of up (docs/compose.md)."
        ),
        least=2,
        most=2,
        options=(
            value("--timeout", "S", "timeout", "seconds to wait for each", convert=seconds),
            flag(
                "--destroy",
                "destroy",
                "with down: remove them, with what they wrote and their volumes",
            ),
        ),
    ),
    Verb(
        name="completion",
        usage="bash|zsh|fish",
        help="print what makes a shell complete verbs, options, containers and templates",
        least=1,
        most=1,
    ),
)
