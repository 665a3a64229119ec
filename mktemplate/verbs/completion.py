"""`completion`: scripts that make a shell complete verbs, options, and names of containers and templates."""

from __future__ import annotations

from collections.abc import Callable

from mktemplate.cli.grammar import ALIASES, VERBS
from mktemplate.cli.options import GLOBAL
from mktemplate.cli.parsing import Request
from mktemplate.cli.verb import Verb
from mktemplate.console import Console
from mktemplate.errors import CommandError, escape

_OF_TEMPLATES = frozenset(("create", "up", "plan", "render", "show", "run", "test-template"))
_NO_NAMES = frozenset(
    ("list", "distros", "templates", "doctor", "prune", "top", "autostart", "new")
)
_FILES = frozenset(("check", "cp", "adopt", "import"))


def completion(request: Request, console: Console) -> int:
    """Print the script for one shell."""
    make = _SHELLS.get(request.words[0])
    if make is None:
        raise CommandError(
            "E_USAGE",
            f'completion "{escape(request.words[0])}"',
            f"is none of {', '.join(_SHELLS)}",
        )
    console.text(make())
    return 0


def _options(verb: Verb) -> str:
    return " ".join(name for option in (*verb.options, *GLOBAL) for name in option.names)


def _kind(verb: Verb) -> str:
    """Return what the words of a verb name."""
    if verb.name in _OF_TEMPLATES:
        return "templates"
    if verb.name in _FILES:
        return "files"
    return "nothing" if verb.name in _NO_NAMES else "containers"


_LISTS = """\
_mktemplate_containers() {
    local base="${MKTEMPLATE_PATH:-}" found
    if [ -z "$base" ]; then
        base="${XDG_DATA_HOME:-$HOME/.local/share}/mktemplate"
        [ "$(id -u)" = 0 ] && base=/var/lib/mktemplate
    fi
    for found in "$base"/*/config; do
        [ -e "$found" ] && found="${found%/config}" && printf '%s\\n' "${found##*/}"
    done 2>/dev/null
}
_mktemplate_templates() { mktemplate --quiet templates 2>/dev/null | awk 'NR > 1 { print $1 }'; }
"""


def _bash() -> str:
    cases = "".join(
        f'        {verb.name}) options="{_options(verb)}"; kind={_kind(verb)};;\n' for verb in VERBS
    )
    verbs = " ".join((*(verb.name for verb in VERBS), *ALIASES))
    return f"""\
# mktemplate completion bash >/etc/bash_completion.d/mktemplate
{_LISTS}\
_mktemplate() {{
    local word="${{COMP_WORDS[COMP_CWORD]}}" verb="" index options="" kind=nothing
    for ((index = 1; index < COMP_CWORD; index++)); do
        case "${{COMP_WORDS[index]}}" in
            --path | --template-path | --color) ((index++));;
            -*) ;;
            *) verb="${{COMP_WORDS[index]}}"; break;;
        esac
    done
    if [ -z "$verb" ]; then
        COMPREPLY=($(compgen -W "{verbs} $(_mktemplate_templates)" -- "$word"))
        return
    fi
    case "$verb" in
{cases}        *) options="{_options(next(verb for verb in VERBS if verb.name == "create"))}";;
    esac
    case "$word" in -*) COMPREPLY=($(compgen -W "$options" -- "$word")); return;; esac
    case "$kind" in
        containers) COMPREPLY=($(compgen -W "$(_mktemplate_containers)" -- "$word"));;
        templates) COMPREPLY=($(compgen -W "$(_mktemplate_templates)" -- "$word"));;
        files) COMPREPLY=($(compgen -f -- "$word") $(compgen -W "$(_mktemplate_containers)" -- "$word"));;
    esac
}}
complete -o default -F _mktemplate mktemplate
"""


def _zsh() -> str:
    verbs = "\n".join(f"    '{verb.name}:{verb.help.replace(chr(39), '')}'" for verb in VERBS)
    cases = "".join(
        f"        {verb.name}) options=({_options(verb)}); kind={_kind(verb)};;\n" for verb in VERBS
    )
    return f"""\
#compdef mktemplate
# mktemplate completion zsh >"${{fpath[1]}}/_mktemplate"
{_LISTS}\
_mktemplate() {{
    local -a verbs options names
    local kind=nothing
    verbs=(
{verbs}
    )
    if ((CURRENT == 2)); then
        _describe verb verbs
        names=(${{(f)"$(_mktemplate_templates)"}}) && _describe template names
        return
    fi
    case "$words[2]" in
{cases}    esac
    if [[ "$words[CURRENT]" == -* ]]; then compadd -- $options; return; fi
    case "$kind" in
        containers) names=(${{(f)"$(_mktemplate_containers)"}}) && compadd -- $names;;
        templates) names=(${{(f)"$(_mktemplate_templates)"}}) && compadd -- $names;;
        files) _files; names=(${{(f)"$(_mktemplate_containers)"}}) && compadd -S: -- $names;;
    esac
}}
compdef _mktemplate mktemplate 2>/dev/null || true
"""


def _fish() -> str:
    lines = [
        "# mktemplate completion fish >~/.config/fish/completions/mktemplate.fish",
        "function __mktemplate_containers",
        "    set -l base $MKTEMPLATE_PATH",
        '    if test -z "$base"; if test (id -u) = 0; set base /var/lib/mktemplate',
        "    else; set -q XDG_DATA_HOME; or set -l XDG_DATA_HOME ~/.local/share",
        "        set base $XDG_DATA_HOME/mktemplate; end; end",
        "    for found in $base/*/config; basename (dirname $found); end",
        "end",
        "function __mktemplate_templates",
        "    mktemplate --quiet templates 2>/dev/null | awk 'NR > 1 { print $1 }'",
        "end",
        "complete -c mktemplate -f",
        "complete -c mktemplate -n __fish_use_subcommand -a '(__mktemplate_templates)'",
    ]
    for verb in VERBS:
        about = verb.help.replace("'", "")
        seen = f"-n '__fish_seen_subcommand_from {verb.name}'"
        lines.append(f"complete -c mktemplate -n __fish_use_subcommand -a {verb.name} -d '{about}'")
        kind = _kind(verb)
        if kind == "files":
            lines.append(f"complete -c mktemplate {seen} -F")
        elif kind != "nothing":
            lines.append(f"complete -c mktemplate {seen} -a '(__mktemplate_{kind})'")
        for option in verb.options:
            names = [
                f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}"
                for name in option.names
            ]
            value = " -r" if option.metavar else ""
            text = option.help.replace("'", "")
            lines.append(f"complete -c mktemplate {seen} {' '.join(names)}{value} -d '{text}'")
    return "\n".join(lines) + "\n"


_SHELLS: dict[str, Callable[[], str]] = {"bash": _bash, "zsh": _zsh, "fish": _fish}
