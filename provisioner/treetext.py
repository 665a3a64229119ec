"""tmpfiles.d(5) and sysusers.d(5) lines ↔ `tree` values: the grammar of a template's tree.j2."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Mapping

from provisioner.errors import ProvisionError
from provisioner.tree import (
    Adjust,
    Copy,
    Directory,
    Fetched,
    File,
    Group,
    Link,
    Member,
    Node,
    Special,
    Tree,
    User,
)

_BARE = r"""[^\s"'\\]+"""
_WORD = re.compile(
    rf"""\s*(?:"((?:[^"\\]|\\.)*)"|'((?:[^'\\]|\\.)*)'|({_BARE}))(?:\s+|$)""", re.ASCII
)
# Compiled where a text has one, which is seldom.
_ESCAPE = rb"\\(?:([abfnrtvs\\\"'])|x([0-9a-fA-F]{2})|([0-7]{3})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|(.?))"
_SIMPLE = dict(zip(b"abfnrtvs\\\"'", b"\a\b\f\n\r\t\v \\\"'", strict=True))
_MODE = re.compile(r"[0-7]{3,4}", re.ASCII)
_NAME = re.compile(r"[a-z_][a-z0-9_-]{0,30}", re.ASCII)
_ID = re.compile(r"0|[1-9][0-9]{0,4}", re.ASCII)
_DEVICE = re.compile(r"(0|[1-9][0-9]{0,3}):(0|[1-9][0-9]{0,6})", re.ASCII)
_FILES = "@files/"
_LAST_ID = 65_535


class _Line:
    """One line that is being read; knows where it stands, for errors."""

    def __init__(self, text: str, source: str, number: int, bodies: Mapping[str, bytes]) -> None:
        self.source, self.number, self.bodies = source, number, bodies
        self.words: list[str] = []
        rest = text
        limit = 6
        while rest.strip() and len(self.words) < limit:
            match = _WORD.match(rest)
            if not match:
                raise self.wrong("a quote or an escape is not closed")
            quoted = match[1] if match[1] is not None else match[2]
            self.words.append(match[3] if quoted is None else self.unescape(quoted).decode())
            rest = rest[match.end() :]
        self.rest = rest.strip(" \t")
        self.kind = self.words[0]

    def wrong(self, detail: str, code: str = "E_TEMPLATE_SYNTAX") -> ProvisionError:
        return ProvisionError(code, self.source, detail, path=self.source, line=self.number)

    def unescape(self, text: str) -> bytes:
        """Return `text` with C escapes decoded (systemd's cunescape)."""

        def decode(match: re.Match[bytes]) -> bytes:
            simple, hexadecimal, octal, four, eight, other = match.groups()
            if other is not None:
                raise self.wrong(f'escape "\\{other.decode(errors="replace")}" is not known')
            if simple:
                return bytes([_SIMPLE[simple[0]]])
            if four or eight:
                return chr(int(four or eight, 16)).encode()
            number = int(hexadecimal, 16) if hexadecimal else int(octal, 8)
            if not 0 < number < 256:
                raise self.wrong("an escape that is no byte, or NUL")
            return bytes([number])

        try:
            raw = text.encode()
            return re.sub(_ESCAPE, decode, raw, flags=re.DOTALL) if b"\\" in raw else raw
        except (ValueError, OverflowError):
            raise self.wrong("an escape that is no character") from None

    def percent(self, text: str) -> str:
        """Return `text` with `%%` decoded; specifiers would differ from host to host."""
        if "%" in text.replace("%%", ""):
            raise self.wrong(f'"{text}": write a percent sign as %%', "E_TEMPLATE_PATH")
        return text.replace("%%", "%")

    def field(self, index: int) -> str | None:
        """Return word `index`, None for `-` or nothing."""
        return self.words[index] if index < len(self.words) and self.words[index] != "-" else None

    def path(self, text: str, *, glob: bool = False) -> str:
        """Return the absolute path `text`, without trailing slash."""
        path = self.percent(text)
        parts = path.split("/")
        if (
            not path.startswith("/")
            or ".." in parts
            or any(ord(c) < 0x20 or c == "\x7f" for c in path)
        ):
            raise self.wrong(f'"{path}" is no absolute path inside the rootfs', "E_TEMPLATE_PATH")
        if glob and re.search(r"[*?\[]", path):
            raise self.wrong(f'"{path}": name each path; patterns are not known', "E_TEMPLATE_PATH")
        clean = "/" + "/".join(part for part in parts if part not in ("", "."))
        if clean == "/" and self.kind not in ("d", "z", "u"):
            raise self.wrong("the rootfs itself can only be a directory", "E_TEMPLATE_PATH")
        return clean

    def mode(self, default: int) -> int:
        text = self.field(2)
        if text is None:
            return default
        if not _MODE.fullmatch(text):
            raise self.wrong(f'mode "{text}" is not octal, like 0755')
        return int(text, 8)

    def name(self, text: str | None, default: str = "root") -> str:
        """Return the user or group name, or number, `text`."""
        if text is None:
            return default
        if not _NAME.fullmatch(text):
            self.number_of(text)
        return text

    def number_of(self, text: str) -> int:
        if not _ID.fullmatch(text) or int(text) > _LAST_ID:
            raise self.wrong(f'"{text}" is neither a name nor an id up to {_LAST_ID}')
        return int(text)

    def body(self) -> bytes:
        """Return what a file shall hold: the argument, or the template's body that it names."""
        if self.rest.startswith(_FILES):
            name = self.rest[len(_FILES) :]
            if name not in self.bodies:
                raise self.wrong(
                    f'"{self.rest}": the template has no files/{name}', "E_TEMPLATE_PATH"
                )
            return self.bodies[name]
        if self.kind.endswith("~"):
            try:
                return base64.b64decode(self.rest, validate=True)
            except (binascii.Error, ValueError):
                raise self.wrong("the argument is not base64") from None
        return self.unescape(self.percent(self.rest if self.rest != "-" else ""))


def _directory(line: _Line) -> Node:
    return Directory(path=line.path(line.words[1]), mode=line.mode(0o755), **_owner(line))


def _file(line: _Line) -> Node:
    replace = line.kind.startswith("f+")
    path = line.path(line.words[1])
    return File(path=path, body=line.body(), mode=line.mode(0o644), replace=replace, **_owner(line))


def _link(line: _Line) -> Node:
    if not line.rest or line.rest == "-":
        raise line.wrong("a link needs its target as seventh field")
    target = line.percent(line.rest)
    return Link(path=line.path(line.words[1]), target=target, replace=line.kind == "L+")


def _copy(line: _Line) -> Node:
    mode = line.mode(-1)
    source = line.path(line.rest)
    return Copy(
        path=line.path(line.words[1]),
        source=source,
        mode=None if mode < 0 else mode,
        **_owner(line),
    )


def _special(line: _Line) -> Node:
    numbers = _DEVICE.fullmatch(line.rest)
    if line.kind == "c" and not numbers:
        raise line.wrong(f'"{line.rest}" is no device number, like 1:3')
    device = (int(numbers[1]), int(numbers[2])) if numbers else None
    return Special(
        path=line.path(line.words[1]), device=device, mode=line.mode(0o644), **_owner(line)
    )


def _adjust(line: _Line) -> Node:
    mode = line.mode(-1)
    user, group = line.field(3), line.field(4)
    return Adjust(
        path=line.path(line.words[1], glob=True),
        mode=None if mode < 0 else mode,
        user=line.name(user) if user else None,
        group=line.name(group) if group else None,
    )


def _owner(line: _Line) -> dict[str, str]:
    return {"user": line.name(line.field(3)), "group": line.name(line.field(4))}


def _account_name(line: _Line, text: str) -> str:
    if not _NAME.fullmatch(text):
        raise line.wrong(f'"{text}" is no name of a user or group')
    return text


def _user(line: _Line) -> Node:
    uid, _, gid = (line.field(2) or "").partition(":")
    return User(
        name=_account_name(line, line.words[1]),
        uid=line.number_of(uid) if uid and uid != "-" else None,
        gid=line.number_of(gid) if gid else None,
        gecos=_colonless(line, line.field(3) or ""),
        home=line.path(line.field(4) or "/"),
        shell=line.path(line.field(5) or "/usr/sbin/nologin"),
    )


def _colonless(line: _Line, text: str) -> str:
    if ":" in text or any(ord(c) < 0x20 or c == "\x7f" for c in text):
        raise line.wrong(f'"{text}" may hold neither a colon nor a control character')
    return line.percent(text)


def _group(line: _Line) -> Node:
    gid = line.field(2)
    return Group(name=_account_name(line, line.words[1]), gid=line.number_of(gid) if gid else None)


def _member(line: _Line) -> Node:
    return Member(user=_account_name(line, line.words[1]), group=_account_name(line, line.words[2]))


# Type → (reader, fewest words, has seven fields).
_TYPES: Mapping[str, tuple[Callable[[_Line], Node], int, bool]] = {
    "d": (_directory, 2, True),
    "f": (_file, 2, True),
    "f+": (_file, 2, True),
    "f~": (_file, 2, True),
    "f+~": (_file, 2, True),
    "L": (_link, 2, True),
    "L+": (_link, 2, True),
    "C": (_copy, 2, True),
    "c": (_special, 2, True),
    "p": (_special, 2, True),
    "z": (_adjust, 2, True),
    "u": (_user, 2, False),
    "g": (_group, 2, False),
    "m": (_member, 3, False),
}


def parse(text: str, bodies: Mapping[str, bytes], source: str) -> Tree:
    """Return the tree that `text` describes; see `tree.parse`."""
    nodes: list[Node] = []
    places: dict[str, int] = {}
    wrong: list[ProvisionError] = []
    for number, raw in enumerate(text.split("\n"), 1):
        if not raw.strip() or raw.lstrip().startswith("#"):
            continue
        try:
            line = _Line(raw, source, number, bodies)
            nodes.append(_placed_once(line, _node(line), places))
        except ProvisionError as failure:
            wrong.append(failure)
    if wrong:
        wrong[0].also = tuple(wrong[1:])
        raise wrong[0]
    tree = Tree(nodes=tuple(nodes))
    _check_groups(tree, source)
    return tree


def _placed_once(line: _Line, node: Node, places: dict[str, int]) -> Node:
    """Return the node, unless another line made something at its path."""
    if not isinstance(node, User | Group | Member | Adjust):
        first = places.setdefault(node.path, line.number)
        if first != line.number:
            raise line.wrong(f"{node.path} is made by an earlier line already")
    return node


def _node(line: _Line) -> Node:
    """Return the value of one line, held to its type's shape."""
    if line.kind not in _TYPES:
        raise line.wrong(f'type "{line.kind}" is not one of {" ".join(_TYPES)}')
    reader, fewest, placed = _TYPES[line.kind]
    if len(line.words) < fewest:
        raise line.wrong(f"{len(line.words)} fields, at least {fewest} are needed")
    if placed and line.field(5) is not None:
        raise line.wrong(f'age "{line.words[5]}": nothing in a rootfs ages, write -')
    if not placed and line.rest:
        raise line.wrong("more fields than a user or group has")
    return reader(line)


def _check_groups(tree: Tree, source: str) -> None:
    """Require a group of its own line for each user that names a group id; systemd-sysusers makes none."""
    known = {node.gid for node in tree.nodes if isinstance(node, Group)}
    for node in tree.nodes:
        if isinstance(node, User) and node.gid is not None and node.gid not in known:
            detail = f"user {node.name} has group {node.gid}: add `g NAME {node.gid}`"
            raise ProvisionError("E_TEMPLATE_SYNTAX", source, detail, path=source)


def render(tree: Tree) -> str:
    """Return the lines of `tree`; see `tree.render`."""
    return "".join(" ".join(_words(node)).rstrip() + "\n" for node in tree.nodes)


def _words(node: Node) -> tuple[str, ...]:
    match node:
        case User():
            uid = "-" if node.uid is None else str(node.uid)
            ids = uid if node.gid is None else f"{uid}:{node.gid}"
            gecos = _quote(node.gecos) if node.gecos else "-"
            return ("u", node.name, ids, gecos, _quote(node.home), _quote(node.shell))
        case Group():
            return ("g", node.name, "-" if node.gid is None else str(node.gid))
        case Member():
            return ("m", node.user, node.group)
        case Adjust():
            mode = "-" if node.mode is None else f"{node.mode:04o}"
            return ("z", _quote(node.path), mode, node.user or "-", node.group or "-")
        case Fetched():  # the text has no such line: template.toml says it
            return ("#", _quote(node.path), f"{node.mode:04o}", node.user, node.group, node.sha256)
        case _:
            return _placed_words(node)


def _placed_words(node: Directory | File | Link | Copy | Special) -> tuple[str, ...]:
    match node:
        case Link():
            target = node.target.replace("%", "%%")
            return ("L+" if node.replace else "L", _quote(node.path), "- - - -", target)
        case File():
            kind, argument = "f+" if node.replace else "f", _escape(node.body)
            if b"\0" in node.body:  # no escape can say NUL
                kind, argument = kind + "~", base64.b64encode(node.body).decode()
        case Copy():
            kind, argument = "C", node.source.replace("%", "%%")
        case Special():
            kind = "c" if node.device else "p"
            argument = f"{node.device[0]}:{node.device[1]}" if node.device else "-"
        case Directory():
            kind, argument = "d", "-"
    mode = "-" if node.mode is None else f"{node.mode:04o}"
    return (kind, _quote(node.path), mode, node.user, node.group, "-", argument)


def _quote(text: str) -> str:
    """Return `text` as one word."""
    text = text.replace("%", "%%")
    if re.fullmatch(_BARE, text):
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def _escape(body: bytes) -> str:
    """Return `body` as an argument: printable ASCII as it is, the rest escaped."""
    if body in (b"", b"-"):
        return "\\x2d" if body else "-"
    text = "".join(_character(byte) for byte in body)
    if text[0] in " @":
        text = f"\\x{body[0]:02x}" + text[1:]
    return text[:-1] + "\\x20" if text.endswith(" ") else text


def _character(byte: int) -> str:
    if byte == 0x0A:
        return "\\n"
    if byte == 0x5C:
        return "\\\\"
    if byte == 0x25:
        return "%%"
    return chr(byte) if 0x20 <= byte < 0x7F else f"\\x{byte:02x}"
