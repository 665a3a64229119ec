"""fstab(5) text ↔ mount entries, with LXC's `create=`, `optional` and `relative` options.

A user's own fstab may say what LXC takes (four to six fields, any option of the file system); what a template
renders is bound by the closed list of security.md 2.4 (F-1 to F-8). No escape but those of getmntent(3) is
known, and each is decoded once.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from runtime.errors import ConfigError, raise_all
from valuetypes import dataclass, replace

MAX_LINES, MAX_BYTES = 64, 4096  # F-6
MAX_OWN_LINES = 4096

_ESCAPES = {"040": " ", "011": "\t", "012": "\n", "134": "\\"}
_LXC_WORDS = frozenset({"optional", "relative", "create=dir", "create=file"})


@dataclass(frozen=True, slots=True, kw_only=True)
class MountEntry:
    """One line of an fstab, escapes decoded."""

    source: str
    target: str
    kind: str  # "none" for binds, else a file system type
    options: tuple[str, ...]  # in order, without create=, optional, relative
    create: str = ""  # "", "dir" or "file"
    optional: bool = False
    relative: bool = False  # source is relative to the rootfs
    line: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """Which host paths a template may bind: `any` way, or `read_only`."""

    any: tuple[str, ...] = ("/srv/mktemplate",)
    read_only: tuple[str, ...] = ()


SHARED_HOST = Sources(
    read_only=("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
)  # of the built-in list

# MS_* of mount(2): what changes how mounts spread
MS_REC = 0x4000
PROPAGATION = {
    "private": 1 << 18,
    "rprivate": 1 << 18 | MS_REC,
    "slave": 1 << 19,
    "rslave": 1 << 19 | MS_REC,
    "shared": 1 << 20,
    "rshared": 1 << 20 | MS_REC,
    "unbindable": 1 << 17,
    "runbindable": 1 << 17 | MS_REC,
}
ATTR_RDONLY, ATTR_NOSUID, ATTR_NODEV, ATTR_NOEXEC = 1, 2, 4, 8
ATTR_ATIME, ATTR_NOATIME, ATTR_STRICTATIME, ATTR_NODIRATIME, ATTR_NOSYMFOLLOW = (
    0x70,
    0x10,
    0x20,
    0x80,
    1 << 21,
)
# name → MOUNT_ATTR_* to set and to clear (mount_setattr(2)); the last of two that contradict wins
ATTRIBUTES: dict[str, tuple[int, int]] = {
    "ro": (ATTR_RDONLY, 0),
    "rw": (0, ATTR_RDONLY),
    "nosuid": (ATTR_NOSUID, 0),
    "suid": (0, ATTR_NOSUID),
    "nodev": (ATTR_NODEV, 0),
    "dev": (0, ATTR_NODEV),
    "noexec": (ATTR_NOEXEC, 0),
    "exec": (0, ATTR_NOEXEC),
    "relatime": (0, ATTR_ATIME),
    "norelatime": (0, 0),
    "noatime": (ATTR_NOATIME, ATTR_ATIME),
    "atime": (0, ATTR_ATIME),
    "strictatime": (ATTR_STRICTATIME, ATTR_ATIME),
    "nostrictatime": (0, ATTR_ATIME),
    "nodiratime": (ATTR_NODIRATIME, 0),
    "diratime": (0, ATTR_NODIRATIME),
    "nosymfollow": (ATTR_NOSYMFOLLOW, 0),
    "defaults": (0, 0),
}
IGNORED = frozenset(
    {"sync", "async", "dirsync", "lazytime", "mand", "nomand", "remount", "move"}
)  # by LXC too

# F-3: what a template may write
_TEMPLATE_WORDS = frozenset(
    "bind rbind ro rw nosuid nodev noexec exec relatime noatime create=dir create=file optional relative defaults"  # noqa: SIM905  words read better than a list
    " strictatime nodiratime private slave rprivate rslave".split()
)
_TEMPLATE_VALUES = frozenset({"idmap", "size", "mode", "uid", "gid", "nr_inodes"})
_TEMPLATE_KINDS = frozenset({"none", "tmpfs"})  # F-2: of the others, only what we made ourselves
_RESERVED = ("proc", "sys", "dev", "run/mktemplate")  # F-7
_CONTRADICTORY = (
    {"ro", "rw"},
    {"exec", "noexec"},
    {"bind", "rbind"},
    {"create=dir", "create=file"},
    {"relatime", "noatime", "strictatime"},
    {"private", "slave", "rprivate", "rslave"},
)


@dataclass(frozen=True, slots=True, kw_only=True)
class MountFlags:
    """What the options of an entry ask of the kernel."""

    bind: bool = False
    recursive: bool = False
    set: int = 0  # MOUNT_ATTR_*
    clear: int = 0  # MOUNT_ATTR_*
    propagation: int = 0  # MS_PRIVATE …, with MS_REC
    idmap: str = ""  # "container", or the path of a user namespace
    data: tuple[str, ...] = ()  # options of the file system


def flags(options: Iterable[str]) -> MountFlags:
    """Return what `options` mean; an unknown one belongs to the file system."""
    bind = recursive = False
    attr_set = attr_clear = propagation = 0
    idmap, data = "", []
    for option in options:
        if option in {"bind", "rbind"}:
            bind, recursive = True, option == "rbind"
        elif option in ATTRIBUTES:
            add, remove = ATTRIBUTES[option]
            attr_set, attr_clear = (attr_set & ~remove) | add, (attr_clear & ~add) | remove
        elif option in PROPAGATION:
            propagation = PROPAGATION[option]
        elif option.startswith("idmap="):
            idmap = option.removeprefix("idmap=")
        elif option not in IGNORED:
            data.append(option)
    return MountFlags(
        bind=bind,
        recursive=recursive,
        set=attr_set,
        clear=attr_clear,
        propagation=propagation,
        idmap=idmap,
        data=tuple(data),
    )


def parse(
    text: str, source: str, *, from_template: bool = False, sources: Sources | None = None
) -> tuple[MountEntry, ...]:
    """Return the entries of `text`; raise ConfigError for the first bad line, with the others in `also`.

    `source` is the file's name for messages. Lines end at byte 0x0a alone (I-9).
    """
    entries: list[MountEntry] = []
    problems: list[ConfigError] = []
    lines = text.split("\n")
    most = MAX_LINES if from_template else MAX_OWN_LINES
    if len([line for line in lines if line.strip(" \t")]) > most:
        problems.append(_problem("E_FSTAB_SYNTAX", f"more than {most} lines", source, most))
    for number, line in enumerate(lines, 1):
        content = line.strip(" \t")
        if not content or content.startswith("#"):
            continue
        try:
            entry = _entry(content, source, number, fields=(6,) if from_template else (4, 5, 6))
        except ConfigError as error:
            problems.append(error)
            continue
        rules = (
            _template_rules(entry, content, sources or Sources())
            if from_template
            else _own_rules(entry)
        )
        problems += [_problem(code, detail, source, number) for code, detail in rules]
        if from_template:
            problems += [
                _problem(
                    "E_FSTAB_TARGET",
                    f'"{entry.target}" would cover line {earlier.line}',
                    source,
                    number,
                )
                for earlier in entries
                if _below(earlier.target.strip("/"), entry.target.strip("/"))
            ]
        entries.append(
            replace(entry, target="/".join(_parts(entry.target))) if from_template else entry
        )
    raise_all(problems)
    return tuple(entries)


def parse_line(text: str) -> tuple[MountEntry, ...]:
    """Return the entry in `text`, the value of a user's own lxc.mount.entry."""
    return (_entry(text.strip(" \t"), "lxc.mount.entry", 0, fields=(4, 5, 6)),)


def render(entries: Sequence[MountEntry]) -> str:
    """Return `entries` as text that parses back to them; raise ConfigError (E_CONFIG_ROUNDTRIP) where it would not."""
    text = "".join(f"{render_line(entry)}\n" for entry in entries)
    again = parse(text, "fstab")
    for wanted, got in zip(entries, again, strict=True):
        if _identity(wanted) != _identity(got):
            raise ConfigError(
                "E_CONFIG_ROUNDTRIP",
                wanted.target,
                "this entry cannot be written as a line of fstab",
            )
    return text


def render_line(entry: MountEntry) -> str:
    """Return `entry` as one line without its end, as lxc.mount.entry takes it too."""
    options = list(entry.options)
    options += [f"create={entry.create}"] if entry.create else []
    options += ["optional"] if entry.optional else []
    options += ["relative"] if entry.relative else []
    words = (entry.source, entry.target, entry.kind, ",".join(options) or "defaults")
    return " ".join(_escape(word) for word in words) + " 0 0"


def inside(entry: MountEntry, rootfs: str) -> str | None:
    """Return the target of `entry` relative to the root.

    An absolute target counts from `rootfs` where it contains it; else LXC drops the entry, with a warning in
    its log (conf.c, mount_entry_on_absolute_rootfs): None.
    """
    if not entry.target.startswith("/"):
        return "/".join(_parts(entry.target))
    _, found, rest = entry.target.partition(rootfs) if rootfs else ("", "", "")
    return "/".join(_parts(rest)) if found else None


def _identity(entry: MountEntry) -> tuple[object, ...]:
    options = tuple(option for option in entry.options if option != "defaults")
    return (
        entry.source,
        entry.target,
        entry.kind,
        options,
        entry.create,
        entry.optional,
        entry.relative,
    )


def _problem(code: str, detail: str, source: str, line: int) -> ConfigError:
    subject = f"{source}:{line}" if line else source
    return ConfigError(code, subject, detail, path=source, line=line or None)


def _entry(content: str, source: str, number: int, *, fields: tuple[int, ...]) -> MountEntry:
    if len(content.encode(errors="surrogateescape")) > MAX_BYTES:
        raise _problem("E_FSTAB_SYNTAX", f"longer than {MAX_BYTES} bytes", source, number)
    if control := re.search(r"[\x00-\x08\x0a-\x1f\x7f]", content):
        raise _problem(
            "E_FSTAB_SYNTAX", f"contains control byte \\x{ord(control[0]):02x}", source, number
        )
    words = re.split(r"[ \t]+", content)
    if len(words) not in fields:
        expected = "6" if fields == (6,) else "4 to 6"
        detail = f"{len(words)} fields, expected {expected} (write a space as \\040)"
        raise _problem("E_FSTAB_SYNTAX", detail, source, number)
    try:
        name, target, kind, options = (_decode(word) for word in words[:4])
    except ValueError as error:
        raise _problem("E_FSTAB_SYNTAX", str(error), source, number) from None
    if any(not re.fullmatch(r"[0-9]", word) for word in words[4:]) or (
        fields == (6,) and words[4:] != ["0", "0"]
    ):
        raise _problem("E_FSTAB_SYNTAX", "the last two fields must be 0 0", source, number)
    if ".." in target.split("/"):
        raise _problem("E_FSTAB_TARGET", f'"{target}": ".." is not allowed', source, number)
    return _shape(name, target, kind, options.split(","), number)


def _shape(name: str, target: str, kind: str, options: list[str], number: int) -> MountEntry:
    """Return an entry with LXC's own words taken out of `options`; the last `create=` counts."""
    create = [
        word.removeprefix("create=") for word in options if word in {"create=dir", "create=file"}
    ]
    return MountEntry(
        source=name,
        target=target,
        kind=kind,
        options=tuple(word for word in options if word and word not in _LXC_WORDS),
        create=create[-1] if create else "",
        optional="optional" in options,
        relative="relative" in options,
        line=number,
    )


def _decode(word: str) -> str:
    def one(found: re.Match[str]) -> str:
        digits = found[1]
        if digits not in _ESCAPES or digits == "012":
            raise ValueError(f"escape \\{digits} is not allowed")
        return _ESCAPES[digits]

    return re.sub(r"\\([0-7]{3}|.?)", one, word)


def _escape(word: str) -> str:
    return "".join(f"\\{ord(char):03o}" if char in " \t\n\\" else char for char in word)


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part not in {"", "."}]


def _below(path: str, top: str) -> bool:
    """Whether `path` is `top` or lies below it, both relative."""
    return _parts(path)[: len(_parts(top))] == _parts(top)


def _own_rules(entry: MountEntry) -> Iterable[tuple[str, str]]:
    """Yield what even a user's own fstab may not say: a bind over /proc hides what the runtime has checked."""
    if flags(entry.options).bind and _below(entry.target, "proc"):
        yield "E_FSTAB_TARGET", "targets below /proc are reserved"


def _template_rules(entry: MountEntry, content: str, sources: Sources) -> Iterable[tuple[str, str]]:
    words = _decode(re.split(r"[ \t]+", content)[3]).split(",")
    yield from _option_rules(words)
    yield from _source_rules(entry, sources)
    for top in _RESERVED:
        if _below(entry.target, top):
            yield "E_FSTAB_TARGET", f"targets below /{top} are reserved"
    if not _parts(entry.target):
        yield "E_FSTAB_TARGET", f'"{entry.target}": the root itself is no target'


def _option_rules(words: list[str]) -> Iterable[tuple[str, str]]:
    for number, word in enumerate(words):
        name, equals, value = word.partition("=")
        if word not in _TEMPLATE_WORDS and not (equals and value and name in _TEMPLATE_VALUES):
            yield "E_FSTAB_OPTION", f'"{word}" is not allowed here'
        elif word in words[:number]:
            yield "E_FSTAB_OPTION", f'"{word}" stands twice'
    for group in _CONTRADICTORY:
        both = [word for word in words if word in group]
        if len(set(both)) > 1:
            yield "E_FSTAB_OPTION", f'"{both[0]}" and "{both[1]}" contradict each other'


def _source_rules(entry: MountEntry, sources: Sources) -> Iterable[tuple[str, str]]:
    meaning = flags(entry.options)
    if entry.kind not in _TEMPLATE_KINDS:
        yield "E_FSTAB_OPTION", f'a template may not mount the type "{entry.kind}"'
        return
    if entry.kind != "none":
        if meaning.bind:
            yield "E_FSTAB_OPTION", f'a bind mount has the type "none", not "{entry.kind}"'
        return
    if not meaning.bind:
        yield "E_FSTAB_OPTION", 'the type "none" needs the option bind or rbind'
        return
    if entry.relative:
        if ".." in entry.source.split("/"):
            yield "E_FSTAB_SOURCE", f'"{entry.source}": ".." is not allowed'
        return
    yield from _host_source(entry.source, meaning, sources)


def _host_source(path: str, meaning: MountFlags, sources: Sources) -> Iterable[tuple[str, str]]:
    if not path.startswith("/") or ".." in path.split("/"):
        yield "E_FSTAB_SOURCE", f'"{path}" is not an absolute path without ".."'
    elif any(_below(path, top) for top in sources.any):
        return
    elif not any(_below(path, top) for top in sources.read_only):
        prefixes = ", ".join((*sources.any, *sources.read_only)) or "none: --grant mount:PATH"
        yield "E_FSTAB_SOURCE", f'"{path}" is not below an allowed source prefix ({prefixes})'
    elif not meaning.set & ATTR_RDONLY:
        yield "E_FSTAB_OPTION", f'"{path}" may be bound read-only only (write ro)'
