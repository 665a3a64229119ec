"""What template.toml and tests.toml may say: each key with its kind, its default and its meaning, as rows of tables.

`spec` and its companions take the known keys from here, and docs/template-reference.md is written from here, so that
neither can leave one out.
"""

# ruff: noqa: E501  # a table of sentences

from __future__ import annotations

from valuetypes import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """One key: what may stand there, what holds where it does not, what it means."""

    name: str
    kind: str
    default: str = ""
    help: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table of a file; `title` is how it is written, "" at the top."""

    title: str
    help: str
    keys: tuple[Key, ...]
    example: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        """The keys that are known."""
        return tuple(key.name for key in self.keys)


def _key(name: str, kind: str, default: str, text: str) -> Key:
    return Key(name=name, kind=kind, default=default, help=text)


TOP = Table(
    title="",
    help="The facts of the template. Every problem of the file is reported at once, with its line.",
    keys=(
        _key("extends", "a built-in template's name", "",
             "this template is that one, but for what it says itself: key by key in `[options.NAME]` and `[packages]`, whole "
             "elsewhere; `[[…]]` tables are added. Files that it has not are the other's"),
        _key("summary", "text", "required", "one line for `mktemplate templates`"),
        _key("distros", "list", "required", "distributions (`debian`) or families (`deb`) that it is written for"),
        _key("profile", "`service`, `login`, `system`", "service",
             "`service` leaves 8 capabilities, `login` 14 for what people log in to, `system` the same for an init of its own: "
             "control groups that it may divide, namespaces and a console are its own"),
        _key("needs_setuid", "true, false, or the name of a bool option", "false",
             "lets setuid programs inside work: `no_new_privs` is off"),
        _key("command", "list, first an absolute path", "[]", "the service, in the foreground; empty: PID 1 only waits and reaps"),
        _key("service_user", "a user's name inside", "root",
             "who runs the command: PID 1 drops to that user, its groups and its home, and has no capability left"
             " (one where the network does not let everybody listen on its port below 1024: CAP_NET_BIND_SERVICE)"),
        _key("init_safe", "true, false", "false",
             "the service reaps children on SIGCHLD and ends on SIGTERM itself, so it may be PID 1"),
        _key("stop_signal", "`TERM`, `INT`, `QUIT`, …, `RTMIN+3` (systemd)", "TERM", "what asks it to end"),
        _key("sockets", "`systemd`, `nginx`", "",
             "the service takes listening sockets that it is given, by sd_listen_fds(3) or as nginx does: `unit --socket` needs it"),
        _key("connect", "text; `{name}`, `{address}`", "", "how a person reaches it"),
        _key("user", "a user's name inside", "the option `user`, else root", "who logs in"),
        _key("login_keys", "true, false", "false", "takes ssh keys: `authorized_keys` of who logs in is written"),
        _key("examples", "list of command lines", "made of the facts", "what `mktemplate show` begins with: how people use it"),
        _key("ports", "list of numbers or of names of port options", "[]", "what it listens on"),
        _key("memory", "bytes", "no limit", "a limit that `--memory` replaces"),
        _key("keep", "list of absolute paths, `*` in the last part", "[]",
             "files that are the container's identity, which an upgrade carries over; the machine-id and `/var/lib/mktemplate` "
             "always are"),
        _key("static", "a path below `/usr`", "",
             "the one static program that the container is made of: there is no base of packages below it. Where the container "
             "is of the host's own release and the host has this program, a trusted template's is copied from there and no "
             "network is needed; else the template's packages are unpacked, which must have no scripts. `--share-host` binds "
             "this program alone"),
        _key("packages", "table", "{}", "see below"),
        _key("preseed", "table", "{}", "see below"),
        _key("options", "tables", "", "see below"),
        _key("ready", "table", "", "see below"),
        _key("first_start", "tables", "", "see below"),
        _key("volume", "tables", "", "see below"),
        _key("device", "tables", "", "see below"),
        _key("repository", "tables", "", "see below"),
        _key("download", "tables", "", "see below"),
    ),
)  # fmt: skip

PACKAGES = Table(
    title="[packages]",
    help=(
        'One list for each family (`deb`), distribution (`debian`) or release (`"debian/bookworm"`): the most special one '
        "counts, and `all` is added to it. Names as the distribution has them."
    ),
    keys=(),
    example='[packages]\ndeb = ["nginx"]\n"debian/bookworm" = ["nginx-light"]',
)

PRESEED = Table(
    title="[preseed]",
    help=(
        "Files that are there before the packages' own scripts run: for each path below `/etc` a list of lines. What a script "
        "would do by itself is settled, such as making everybody the same databases in a layer."
    ),
    keys=(),
    example='[preseed]\n"/etc/postgresql-common/createcluster.d/mktemplate.conf" = ["create_main_cluster = off"]',
)

OPTION = Table(
    title="[options.NAME]",
    help=(
        "What `--set NAME=VALUE` may say. A value is checked before anything is rendered, and holds no control character, so "
        "it can never become a second line anywhere."
    ),
    keys=(
        _key("type", "see the types", "required", "what a value may be"),
        _key("default", "of the type", "required, but for a secret", "what holds where nothing is given"),
        _key("required", "true, false", "false", "there is no default: it must be given"),
        _key("help", "text", "", "one line for `mktemplate show`"),
        _key("choices", "list", "", "of a choice: the values"),
        _key("pattern", "a regular expression", "", "what a str, a path, a secret or each word of a list must match as a whole"),
        _key("packages", "list", "[]", "of a bool: packages that come along where it is true"),
        _key("at", "a path inside", "", "of a mount, required: where it is seen"),
        _key("owner", "a user inside", "", "of a mount: whose its files are, where root may map them"),
        _key("made", "true, false", "true", "of a secret: one is made at the first start where none is given"),
    ),
    example='[options.port]\ntype = "port"\ndefault = 80\nhelp = "the port that it listens on, inside"',
)  # fmt: skip

READY = Table(
    title="[ready]",
    help="When the service is ready, by one of port, command and file. Without it a container is ready at once.",
    keys=(
        _key("port", "a number, or the name of a port option", "", "it accepts a connection"),
        _key(
            "expect",
            "text, a byte a character",
            "",
            "what that port answers first, where it listens before it can serve",
        ),
        _key("send", "text, a byte a character", "", "what it is told before"),
        _key("command", "text, split as a shell does", "", "it succeeds inside"),
        _key("file", "an absolute path inside", "", "it is there"),
        _key("timeout", "seconds", "60", "how long `up` waits"),
    ),
    example='[ready]\nport = "port"',
)

FIRST_START = Table(
    title="[[first_start]]",
    help=(
        "What the container does itself at its first start, in order. Secrets and identities are made here, never in a layer: "
        "no two containers share a key. A step may run again where the one after it failed."
    ),
    keys=(
        _key("run", "list, first an absolute path", "required",
             "the argv; a step whose program renders to nothing is left out"),
        _key("unless", "an absolute path inside", "", "a file that makes it needless"),
        _key("user", "a user's name inside", "root", "who runs it"),
        _key("secret", "the name of a secret", "",
             "it has that secret on standard input, as one line; with `unless` it also runs where the secret was given: that is "
             "how `--secret` sets a new password for data that exist"),
    ),
    example=(
        '[[first_start]]\nrun = ["/usr/bin/exampled", "init", "--password-file=/dev/stdin"]\n'
        'unless = "/var/lib/example/VERSION"\nuser = "example"\nsecret = "password"'
    ),
)  # fmt: skip

VOLUME = Table(
    title="[[volume]]",
    help=(
        "A directory of data that outlive the packages. It lies in `PATH/CONTAINER/volumes/NAME`, is mounted read-write, nosuid "
        "and nodev, and begins with what the packages and the tree have at its path, as docker's volumes do."
    ),
    keys=(
        _key("name", "`a-z 0-9 _ -`", "required", "how it is called on the host"),
        _key(
            "path", "an absolute path, not below `/run` or `/tmp`", "required", "where it is inside"
        ),
        _key(
            "owner",
            "a user's name inside",
            "root",
            "whose it is; numbers differ, so they stand in no template",
        ),
        _key("group", "a group's name inside", "the owner's", "its group"),
        _key("mode", "octal text", '"0755"', "its mode"),
        _key("fresh", "true, false", "false", "it begins empty, whatever the packages have there"),
        _key("help", "text", "", "one line for `mktemplate show`"),
    ),
    example='[[volume]]\nname = "data"\npath = "/var/lib/example"\nowner = "example"\nmode = "0750"\nhelp = "the database"',
)

DEVICE = Table(
    title="[[device]]",
    help="A device of the host, as `--device` gives it. A template that is not trusted gets it with `--grant device:PATH` only.",
    keys=(
        _key("path", "a path below `/dev`", "required", "which"),
        _key("group", "a group's name inside", "", "who may use it"),
        _key("optional", "true, false", "false", "the service works without it"),
        _key("help", "text", "", "one line for `mktemplate show`"),
    ),
    example='[[device]]\npath = "/dev/dri/renderD128"\ngroup = "render"\noptional = true',
)

REPOSITORY = Table(
    title="[[repository]]",
    help=(
        "A third party's signed repository; fields as in sources.list(5), a text or a list. What the distribution has it can "
        "never replace, unless `only` names it."
    ),
    keys=(
        _key("uris", "texts", "required", "addresses; `{distro}`, `{release}`, `{arch}` in them are the target's"),
        _key("suites", "texts", "required", "suites, filled in likewise"),
        _key("components", "texts", "required", "components, filled in likewise"),
        _key("fingerprint", "40 hexadecimal digits", "required", "of the key that signs"),
        _key("signed_by", "an armored key", "required",
             "the key itself; a trusted template may name a keyring's absolute path instead"),
        _key("only", "package names", "what the distribution lacks", "what may come from it"),
        _key("distros", "families, distributions, releases", "all", "for which of them it is asked"),
    ),
    example=(
        '[[repository]]\nuris = "https://packages.example.org/{distro}"\nsuites = "{release}"\ncomponents = "main"\n'
        'fingerprint = "0123456789ABCDEF0123456789ABCDEF01234567"\nonly = ["example-server"]\nsigned_by = """\n'
        '-----BEGIN PGP PUBLIC KEY BLOCK-----\n…\n"""'
    ),
)  # fmt: skip

DOWNLOAD = Table(
    title="[[download]]",
    help="One file that is no package, fetched once per machine and refused (E_TRUST_HASH) where it is another one.",
    keys=(
        _key("url", "http or https, no query", "required", "where it is"),
        _key("sha256", "64 hexadecimal digits", "required", "what it is"),
        _key(
            "to",
            "an absolute path, not below `/run` or `/tmp`",
            "required",
            "where the tree has it",
        ),
        _key("mode", "octal text", '"0644"', "its mode"),
        _key("owner", "a user's name inside", "root", "its owner"),
        _key("group", "a group's name inside", "root", "its group"),
        _key("arch", "an architecture", "all", "for which it is"),
        _key("distros", "families, distributions, releases", "all", "for which of them it is"),
    ),
    example='[[download]]\nurl = "https://example.org/tool-1.2"\nsha256 = "…"\nto = "/usr/local/bin/tool"\nmode = "0755"',
)

TEST = Table(
    title="[[test]]",
    help="One command, run in a container made for the tests, or beside it; how it must end.",
    keys=(
        _key("name", "text", "the command", "what it shows, as a sentence"),
        _key("command", "list", "required", "the argv; `{{ … }}` is filled in as in template.toml, `{{ address }}` is the container's"),
        _key("on", "`inside`, `host`", "inside",
             "where it runs; on the host only for a trusted template, or with `--grant run:host`"),
        _key("user", "a user's name inside", "root", "who runs it"),
        _key("input", "text", "", "its standard input"),
        _key("expected", "text", "", "is in what it prints"),
        _key("pattern", "a regular expression", "", "is found in what it prints"),
        _key("status", "0…255", "0", "how it ends"),
        _key("timeout", "seconds", "30", "how long it may take"),
        _key("restart", "true, false", "false", "the container is restarted before it, and ready again"),
    ),
    example='[[test]]\nname = "it answers"\ncommand = ["curl", "-fsS", "http://127.0.0.1:{{ options.port }}/"]\nexpected = "It works"',
)  # fmt: skip

TABLES = (TOP, PACKAGES, PRESEED, OPTION, READY, FIRST_START, VOLUME, DEVICE, REPOSITORY, DOWNLOAD)

# What a value of each type of option may be, and what the template gets of it.
TYPES = {
    "str": "a text, at most 4096 bytes, that matches `pattern`",
    "int": "0…2147483647",
    "bool": "true, false, yes, no, 1, 0",
    "port": "1…65535",
    "size": "`64M`, `2G`, `1048576`: K, M, G, T are powers of 1024; the template gets bytes",
    "path": "an absolute path without `..` that matches `pattern`",
    "choice": "one of `choices`",
    "list": "words with commas between them, each of which matches `pattern`; the template gets a list",
    "mount": "a file or directory of the host, seen read-only at `at`, or nothing; the template gets its absolute path",
    "secret": "never a value: given by `--secret`, or made inside; no text is rendered from it",
}

# What the files of a template may name.
VALUES = {
    "name": "the container's name",
    "template": "`.name`, `.profile`, `.stop_signal`",
    "distro": "`.name`, `.release`, `.arch`, `.family`",
    "options": "`.NAME`: the value of each option but the secrets",
    "volumes": "a list of `.name`, `.path`, `.owner`, `.mode`",
    "network": "`.kind`: bridge, router, none, host or macvlan; `.link`: the bridge or interface",
    "limits": "`.memory` (bytes), `.pids`, `.cpu` (microseconds of 100000); 0 is none",
    "keys": "ssh public keys of who may log in",
    "login_keys": "whether it takes such keys",
    "login_user": "who logs in",
    "login_home": "that user's home",
    "env": "what `--env` gives, as `K=V`",
    "setuid": "whether setuid programs work",
    "shared_host": "whether `/usr` is the host's (`--share-host`)",
    "merged_usr": "whether `/bin` is a link into `/usr` there",
    "static": "the path of the one static program, if that is all",
    "userns": "whether the container has a user namespace",
    "single_id": "whether root is the only user inside, under whatever name (`--single-id`)",
    "init_folder": "where programs of the template's own belong: `/usr/lib/mktemplate`, or `/etc/mktemplate` with `--share-host`",
    "reaper": "whether this architecture has a reaper",
    "idle": "whether PID 1 only waits (`mktemplate run`)",
}
