"""Command lines that show each verb at work: `mktemplate help VERB` ends with them, the man page too."""

from __future__ import annotations

# verb → (command line, what it does)
EXAMPLES: dict[str, tuple[tuple[str, str], ...]] = {
    "up": (
        ("mktemplate up nginx --publish 8080:80", "http://127.0.0.1:8080/ answers"),
        ("mktemplate up postgresql db --secret password=@pw", "under a name of its own, with a password of yours"),
        ("mktemplate up sshd --distro debian --release bookworm --memory 256M", "an older release, and a limit"),
    ),
    "create": (
        ("mktemplate create nginx --flat", "a directory that lxc-start starts unchanged"),
        ("mktemplate create sshd --packages vim,rsync --start", "more packages, and started"),
        ("mktemplate create nginx web --lock web.lock", "exactly the packages of a lock"),
    ),
    "start": (
        ("mktemplate start web db", "both"),
        ("mktemplate start --print web", "every system call that would be made, with its reason"),
    ),
    "stop": (("mktemplate stop web --timeout 30", "give it half a minute to finish"),),
    "restart": (("mktemplate restart web", ""),),
    "kill": (("mktemplate kill web HUP", "have its first process read its configuration again"),),
    "freeze": (("mktemplate freeze web", ""),),
    "unfreeze": (("mktemplate unfreeze web", ""),),
    "wait": (("mktemplate wait db --state READY --timeout 60", "until it accepts clients"),),
    "run": (
        ("mktemplate run base -- dpkg -l", "a command in a fresh Debian"),
        ("mktemplate run base --network none --volume .:/src:ro -- ls /src", "no network, one directory"),
    ),
    "exec": (("mktemplate exec --user www-data web -- id", "as a user inside"),),
    "shell": (("mktemplate shell web", ""),),
    "ssh": (("mktemplate ssh sshd uptime", "one command; without one a login"),),
    "logs": (("mktemplate logs -f -n 20 web", "the last 20 lines, and what comes"),),
    "list": (("mktemplate list --json", "for programs"),),
    "info": (("mktemplate info web --isolation", "what is forbidden inside, found by trying"),),
    "destroy": (("mktemplate destroy --force web", "stopped first, then gone with its data"),),
    "render": (("mktemplate render nginx -o out --set port=8080", "the texts as files in out/"),),
    "plan": (("mktemplate plan nginx", "each package with version, size and origin"),),
    "templates": (
        ("mktemplate templates", "what there is"),
        ("mktemplate templates add https://example.org/shop.git#v2", "somebody's, from git"),
        ("mktemplate templates remove shop", ""),
    ),
    "show": (("mktemplate show postgresql", ""),),
    "new": (("mktemplate new ngircd", "see docs/writing-templates.md"),),
    "check": (
        ("mktemplate check ngircd --online", "a template, with its packages"),
        ("mktemplate check /var/lib/lxc/web/config", "a configuration, as liblxc would judge it"),
    ),
    "test-template": (("mktemplate test-template ngircd --release bookworm", ""),),
    "distros": (("mktemplate distros", ""),),
    "config": (
        ("mktemplate config web get lxc.cgroup2.memory.max", ""),
        ("mktemplate config web set lxc.start.auto 1", "start it with the host"),
    ),
    "lock": (
        ("mktemplate lock web -o web.lock", "what it is made of"),
        ("mktemplate lock --check web.lock", "is there anything newer?"),
    ),
    "export": (("mktemplate export web -o web.tar --format oci", "for podman, skopeo, a registry"),),
    "import": (("mktemplate import web.tar web2 --start", "from podman save, docker save, skopeo copy"),),
    "pull": (("mktemplate pull registry.example.org/team/web:1.2 web", ""),),
    "push": (("mktemplate push web registry.example.org/team/web:1.2", ""),),
    "compose": (
        ("mktemplate compose up shop.toml", "see docs/compose.md"),
        ("mktemplate compose ps shop.toml", ""),
        ("mktemplate compose down shop.toml", "data stay: up brings it back"),
    ),
    "sbom": (("mktemplate sbom web --format cyclonedx -o web.json", ""),),
    "diff": (("mktemplate diff web", ""),),
    "outdated": (("mktemplate outdated", "every container"),),
    "upgrade": (("mktemplate upgrade web --dry-run", "what would change"),),
    "rollback": (("mktemplate rollback web", ""),),
    "why": (("mktemplate why web libssl3t64", ""),),
    "trust": (("mktemplate trust list", ""),),
    "store": (("mktemplate store verify", ""),),
    "prune": (("mktemplate prune --dry-run", "what it would free"),),
    "copy": (("mktemplate copy web web2", ""),),
    "rename": (("mktemplate rename web shop", ""),),
    "snapshot": (
        ("mktemplate snapshot db create before", ""),
        ("mktemplate snapshot db restore before", "db must be stopped"),
    ),
    "cp": (
        ("mktemplate cp site/ web:/var/www/html", "in"),
        ("mktemplate cp web:/etc/nginx/nginx.conf .", "out"),
    ),
    "top": (("mktemplate top", ""),),
    "console": (("mktemplate console system", "Ctrl-a q leaves it"),),
    "autostart": (("mktemplate autostart", "at boot, from a unit"),),
    "unit": (("mktemplate unit web", "its systemd unit, on standard output"),),
    "adopt": (("mktemplate adopt /var/lib/lxc/old", ""),),
    "completion": (("mktemplate completion bash", "for /etc/bash_completion.d/mktemplate"),),
    "doctor": (("mktemplate doctor", ""),),
    "help": (
        ("mktemplate help up", ""),
        ("mktemplate help --man", "the man page, for /usr/local/share/man/man1/mktemplate.1"),
    ),
}  # fmt: skip


def lines(verb: str) -> list[str]:
    """Return the examples of a verb as lines of its page."""
    rows = EXAMPLES.get(verb, ())
    width = max((len(command) for command, _ in rows), default=0)
    return [
        f"  {command:<{width}}{f'   {text}' if text else ''}".rstrip() for command, text in rows
    ]
