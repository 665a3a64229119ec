"""LXC's seccomp profile text → the BPF program that seccomp(2) loads. No libseccomp.

Version 1 is an allow-list of numbers; version 2 has sections by architecture with names, actions and tests of
arguments (lxc.container.conf(5), SECCOMP CONFIGURATION). Rules of one system call are or-ed, the first that
matches decides, and one without tests outweighs the others, as in libseccomp. What a filter's machine is not
written for is killed: 32-bit calls on x86-64 would slip past tests of arguments.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

from runtime import filterprogram
from runtime.errors import ConfigError, raise_all
from runtime.filterprogram import ALLOW, KILL_THREAD, TRAP, Test, Verdict, errno_action
from runtime.kernel import syscall_names
from runtime.seccomp_profile import default_profile
from valuetypes import dataclass

__all__ = ["LOAD_FLAGS", "Profile", "Rule", "compile_profile", "default_profile", "parse"]

LOAD_FLAGS = 1 | 4  # SECCOMP_FILTER_FLAG_TSYNC | _SPEC_ALLOW, seccomp(2)
MAX_BYTES = 1 << 20

_SECTIONS = {
    "all": ("x86_64", "aarch64"),
    "x86_64": ("x86_64",),
    "arm64": ("aarch64",),
    "aarch64": ("aarch64",),
}
_FOREIGN = frozenset(
    "x86 x32 arm mips mips64 mips64n32 mipsel mipsel64 mipsel64n32 ppc ppc64 ppc64le riscv64 s390x loongarch64".split()  # noqa: SIM905  words read better than a list
)
_OPS = frozenset(("NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ"))
_TEST = re.compile(r"\[\s*([0-5])\s*,\s*(\w+)\s*,\s*SCMP_CMP_(\w+)\s*(?:,\s*(\w+)\s*)?\]", re.ASCII)
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_COMMENT = re.compile(r"(^|\s)#.*")
_EACCES = 13


class Rule(NamedTuple):
    """What happens to one system call where all of `tests` hold. A NamedTuple, as its parts: there are hundreds."""

    name: str  # or, in version 1, a number
    action: int  # SECCOMP_RET_*
    tests: tuple[Test, ...] = ()
    machines: tuple[str, ...] = ("x86_64", "aarch64")


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """A profile as it was written."""

    default: int  # SECCOMP_RET_* for what no rule names
    rules: tuple[Rule, ...]


def parse(text: str, source: str = "seccomp") -> Profile:
    """Return what `text` says; ConfigError for the first wrong line, the others in its `also`."""
    if len(text) > MAX_BYTES or "\0" in text:
        raise ConfigError("E_CONFIG_VALUE", source, "is too large or holds a NUL", path=source)
    lines = [(number, _strip(line)) for number, line in enumerate(text.split("\n"), 1)]
    lines = [(number, line) for number, line in lines if line]
    version = lines[0][1] if lines else ""
    if version not in {"1", "2"} or len(lines) < 2:
        detail = "a profile begins with its version, 1 or 2, and a line allowlist or denylist"
        raise ConfigError("E_CONFIG_VALUE", source, detail, path=source, line=1)
    word, _, rest = lines[1][1].partition(" ")
    listing = {"whitelist": "allowlist", "blacklist": "denylist"}.get(word, word)
    try:
        default, usual = _policy(version, listing, rest)
    except ValueError as error:
        raise _wrong(source, lines[1][0], str(error)) from None
    return Profile(default=default, rules=_rules(version, lines[2:], usual, source))


@lru_cache(maxsize=16)
def compile_profile(text: str, source: str = "seccomp", machine: str = os.uname().machine) -> bytes:
    """Return `text` as an array of struct sock_filter for `machine`; ConfigError or HostError where it cannot be.

    Where the default is an errno, numbers newer than our tables answer ENOSYS, so that programs fall back.
    """
    profile = parse(text, source)
    if machine not in filterprogram.AUDIT_ARCHES:
        raise ConfigError(
            "E_PARAM", source, f"no seccomp filter can be made for {machine}", path=source
        )
    numbers = syscall_names.numbers(machine)
    verdicts: dict[int, list[Verdict]] = {}
    for rule in profile.rules:
        number = int(rule.name) if rule.name.isdigit() else numbers.get(rule.name)
        if (
            number is not None and machine in rule.machines
        ):  # libseccomp, too, skips names it does not know
            verdicts.setdefault(number, []).append(Verdict(tests=rule.tests, action=rule.action))
    return filterprogram.assemble(machine, verdicts, profile.default, syscall_names.NEWEST)


def _strip(line: str) -> str:
    return (_COMMENT.sub("", line.removesuffix("\r")) if "#" in line else line).strip()


def _wrong(source: str, line: int, detail: str) -> ConfigError:
    return ConfigError("E_CONFIG_VALUE", f"{source}:{line}", detail, path=source, line=line)


def _policy(version: str, listing: str, rest: str) -> tuple[int, int]:
    """Return the action for what is not listed and the usual one for what is."""
    if listing not in {"allowlist", "denylist"} or (version == "1" and listing == "denylist"):
        raise ValueError(f"{listing!r}: expected allowlist or, in version 2, denylist")
    default, usual = (KILL_THREAD, ALLOW) if listing == "allowlist" else (ALLOW, KILL_THREAD)
    if version == "2" and rest.strip():
        default, _ = _action(rest.split(), default)
    return default, usual


def _action(words: list[str], usual: int) -> tuple[int, list[str]]:
    """Return the action that `words` begin with, else `usual`, and the words after it."""
    if not words or words[0].startswith("["):
        return usual, words
    word, *rest = words
    if word == "errno":
        if not rest or not re.fullmatch(r"[0-9]{1,4}", rest[0], re.ASCII) or int(rest[0]) > 4095:
            raise ValueError("errno needs a number up to 4095")
        return errno_action(int(rest[0])), rest[1:]
    simple = {"kill": KILL_THREAD, "allow": ALLOW, "trap": TRAP}
    if word == "notify":
        raise ValueError("notify needs a proxy, and there is none of ours")
    if word not in simple:
        raise ValueError(f"{word!r} is no action (kill, errno N, allow, trap)")
    return simple[word], rest


def _rules(
    version: str, lines: Iterable[tuple[int, str]], usual: int, source: str
) -> tuple[Rule, ...]:
    rules: list[Rule] = []
    problems: list[ConfigError] = []
    machines = _SECTIONS["all"]
    for number, line in lines:
        section = re.fullmatch(r"\[([A-Za-z0-9_]+)\]", line, re.ASCII) if line[0] == "[" else None
        try:
            if section and version == "2":
                machines = _section(section[1].lower())
            elif version == "1":
                rules.append(_numbered(line))
            else:
                rules.append(_rule(line, usual, machines))
        except ValueError as error:
            problems.append(_wrong(source, number, str(error)))
    raise_all(problems)
    return tuple(rules)


def _section(name: str) -> tuple[str, ...]:
    if name in _FOREIGN:
        return ()
    if name not in _SECTIONS:
        raise ValueError(f"[{name}] is no architecture")
    return _SECTIONS[name]


def _numbered(line: str) -> Rule:
    if not re.fullmatch(r"[0-9]{1,9}", line, re.ASCII):
        raise ValueError(f"{line!r} is no number of a system call")
    return Rule(name=line, action=ALLOW)


def _rule(line: str, usual: int, machines: tuple[str, ...]) -> Rule:
    head, bracket, tail = line.partition("[")
    name, *words = head.split()
    if name == "reject_force_umount":
        force = Test(argument=1, op="MASKED_EQ", value=1, mask=1)  # MNT_FORCE
        return Rule(name="umount2", action=errno_action(_EACCES), tests=(force,), machines=machines)
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no name of a system call")
    action, rest = _action(words, usual)
    if rest:
        raise ValueError(f"{' '.join(rest)!r} is too much")
    return Rule(name=name, action=action, tests=_tests(bracket + tail), machines=machines)


def _tests(text: str) -> tuple[Test, ...]:
    if not text:
        return ()
    found = tuple(_TEST.finditer(text))
    if re.sub(r"\s", "", _TEST.sub("", text)):
        raise ValueError(f"{text!r}: expected [INDEX,VALUE,SCMP_CMP_OP] or with a mask")
    return tuple(_test(*match.groups()) for match in found)


def _test(argument: str, value: str, op: str, mask: str | None) -> Test:
    """Return one test; LXC writes the mask last, and it counts for MASKED_EQ alone."""
    if op not in _OPS:
        raise ValueError(f"SCMP_CMP_{op} is no comparison")
    bits = int(mask, 0) if mask is not None else 2**64 - 1
    if op == "MASKED_EQ" and mask is None:
        raise ValueError("SCMP_CMP_MASKED_EQ needs a mask")
    return Test(argument=int(argument), op=op, value=int(value, 0) % 2**64, mask=bits)
