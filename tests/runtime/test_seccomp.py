"""The filter, decided by a small interpreter of classic BPF for every system call, and live in a child."""

from __future__ import annotations

import errno
import os
import struct

import pytest

from runtime import seccomp
from runtime.errors import ConfigError
from runtime.filterprogram import ALLOW, AUDIT_ARCHES, KILL_PROCESS, errno_action
from runtime.kernel import libc, syscall_names
from runtime.seccomp_profile import _ALWAYS

EPERM, ENOSYS, EAFNOSUPPORT = (
    errno_action(n) for n in (errno.EPERM, errno.ENOSYS, errno.EAFNOSUPPORT)
)
BY_ARGUMENT = {"clone", "clone3", "mknod", "mknodat", "socket", "personality", "ioctl", "prctl"}


def decide(program: bytes, machine: str, number: int, *arguments: int) -> int:
    """Return what `program` answers: the instructions of linux/filter.h that seccomp(2) knows."""
    padded = (*arguments, *(0,) * (6 - len(arguments)))
    data = struct.pack("<iIQ6Q", number, AUDIT_ARCHES[machine], 0, *(a % 2**64 for a in padded))
    code = [struct.unpack_from("=HBBI", program, at) for at in range(0, len(program), 8)]
    at = accumulator = 0
    while True:
        operation, yes, no, constant = code[at]
        at += 1
        if operation == 0x20:
            (accumulator,) = struct.unpack_from("<I", data, constant)
        elif operation == 0x54:
            accumulator &= constant
        elif operation == 0x05:
            at += constant
        elif operation == 0x06:
            return constant
        else:
            holds = {
                0x15: accumulator == constant,
                0x25: accumulator > constant,
                0x35: accumulator >= constant,
            }
            at += yes if holds[operation] else no


@pytest.fixture(scope="module", params=["x86_64", "aarch64"])
def machine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def service(machine: str) -> bytes:
    return seccomp.compile_profile(
        seccomp.default_profile("service", machine=machine), machine=machine
    )


def test_every_number_up_to_six_hundred_is_decided_as_the_table_says(
    service: bytes, machine: str
) -> None:
    names = {number: name for name, number in syscall_names.numbers(machine).items()}
    always = {*_ALWAYS.split(), *(("arch_prctl",) if machine == "x86_64" else ())}
    wrong = []
    for number in range(601):
        name = names.get(number, "")
        if name in BY_ARGUMENT:
            continue
        wanted = ALLOW if name in always else EPERM if number <= syscall_names.NEWEST else ENOSYS
        if decide(service, machine, number) != wanted:
            wrong.append((number, name))

    assert wrong == []


@pytest.mark.parametrize(
    ("name", "arguments", "wanted"),
    [
        ("clone", (0x11,), ALLOW),
        *(("clone", (flag,), EPERM) for flag in (1 << 25, 1 << 26, 1 << 27, 1 << 28, 1 << 29, 1 << 30, 1 << 17)),
        ("clone3", (), ENOSYS),
        *(("socket", (family, 1, 0), ALLOW) for family in (1, 2, 10, 16)),
        *(("socket", (family, 3, 0), EAFNOSUPPORT) for family in range(46) if family not in (1, 2, 10, 16)),
        ("socket", (16, 3, 9), EAFNOSUPPORT),
        ("socket", (1 << 32 | 38, 3, 0), EAFNOSUPPORT),
        ("ioctl", (0, 0x5401), ALLOW),
        ("ioctl", (0, 0x5412), EPERM),
        ("ioctl", (0, 0x541C), EPERM),
        ("ioctl", (0, 1 << 32 | 0x5412), EPERM),
        ("ioctl", (0, 0x5413), ALLOW),
        *(("personality", (value,), ALLOW) for value in (0, 8, 0x20000, 0x20008, 0xFFFFFFFF)),
        ("personality", (0x40000,), EPERM),
        ("prctl", (35, 8), EPERM),
        ("prctl", (38, 1), ALLOW),
        ("prctl", (53, 0, 2), EPERM),
        ("prctl", (53, 0, 4), ALLOW),
        ("prctl", (0x59616D61, -1), EPERM),
        ("prctl", (0x59616D61, 4711), ALLOW),
        ("mknodat", (0, 0, 0o020666), EPERM),
        ("mknodat", (0, 0, 0o060666), EPERM),
        ("mknodat", (0, 0, 0o010666), ALLOW),
        ("mknodat", (0, 0, 0o100666), ALLOW),
    ],
)  # fmt: skip
def test_arguments_decide(
    service: bytes, machine: str, name: str, arguments: tuple[int, ...], wanted: int
) -> None:
    number = syscall_names.numbers(machine)[name]

    assert decide(service, machine, number, *arguments) == wanted


def test_another_machine_and_x32_are_killed(service: bytes, machine: str) -> None:
    other = "aarch64" if machine == "x86_64" else "x86_64"

    assert decide(service, other, 0) == KILL_PROCESS
    if machine == "x86_64":
        assert decide(service, machine, 0x40000000) == KILL_PROCESS
        assert decide(service, machine, -1) == ENOSYS


@pytest.mark.parametrize(
    ("profile", "grants", "name", "wanted"),
    [
        ("system", frozenset(), "unshare", ALLOW),
        ("login", frozenset(), "unshare", EPERM),
        ("build", frozenset(), "mount", EPERM),
        ("service", frozenset({"seccomp:ptrace"}), "ptrace", ALLOW),
        ("service", frozenset({"seccomp:mknod"}), "mknod", ALLOW),
    ],
)
def test_profiles_and_grants_open_what_they_say(
    profile: str, grants: frozenset[str], name: str, wanted: int
) -> None:
    text = seccomp.default_profile(profile, grants, "x86_64")

    program = seccomp.compile_profile(text, machine="x86_64")
    assert decide(program, "x86_64", syscall_names.numbers("x86_64")[name], 0, 0o020000) == wanted


def test_with_a_single_id_groups_are_given_up_for_show(machine: str) -> None:
    program = seccomp.compile_profile(
        seccomp.default_profile("service", machine=machine, single_id=True), machine=machine
    )
    number = syscall_names.numbers(machine)["setgroups"]

    assert (
        decide(program, machine, number, 0, 0) == 0x00050000
    )  # SECCOMP_RET_ERRNO, 0: nothing is done


@pytest.mark.parametrize(
    ("op", "value", "argument", "holds"),
    [
        ("EQ", 1 << 32, 1 << 32, True), ("EQ", 1 << 32, 0, False), ("NE", 5, 1 << 32 | 5, True), ("NE", 5, 5, False),
        ("GE", 1 << 33, 1 << 33, True), ("GE", 1 << 33, (1 << 33) - 1, False), ("GT", 7, 7, False),
        ("GT", 7, 1 << 40, True),
        ("LE", 7, 7, True), ("LE", 7, 1 << 40, False), ("LT", 1 << 33, 5, True), ("LT", 5, 5, False),
    ],
)  # fmt: skip
def test_comparisons_see_all_sixty_four_bits(
    op: str, value: int, argument: int, holds: bool
) -> None:
    text = f"2\nallowlist errno 1\n[all]\nread [0,{value},SCMP_CMP_{op}]\n"

    program = seccomp.compile_profile(text, machine="x86_64")
    assert (decide(program, "x86_64", 0, argument) == ALLOW) is holds


def test_lxcs_own_profile_is_understood() -> None:
    text = "2\ndenylist\nreject_force_umount  # comment this\n[all]\nkexec_load errno 1\ninit_module errno 1\n"

    program = seccomp.compile_profile(text, machine="x86_64")
    numbers = syscall_names.numbers("x86_64")
    assert decide(program, "x86_64", numbers["kexec_load"]) == EPERM
    assert decide(program, "x86_64", numbers["umount2"], 0, 1) == errno_action(errno.EACCES)
    assert decide(program, "x86_64", numbers["umount2"], 0, 2) == ALLOW
    assert decide(program, "x86_64", 600) == ALLOW


def test_version_one_is_a_list_of_numbers() -> None:
    program = seccomp.compile_profile("1\nallowlist\n0\n1\n", machine="x86_64")

    assert [decide(program, "x86_64", number) for number in (0, 1, 2)] == [ALLOW, ALLOW, 0]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "3\nallowlist\n",
        "2\nnolist\n",
        "2\nallowlist\n[all]\nread what\n",
        "2\nallowlist\n[vax]\n",
    ],
)
def test_what_is_no_profile_is_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        seccomp.compile_profile(text, machine="x86_64")


@pytest.mark.root
def test_the_kernel_agrees_in_a_child() -> None:
    program = seccomp.compile_profile(seccomp.default_profile())
    calls: list[tuple[str, tuple[int, ...], int]] = [
        ("unshare", (0x10000000,), errno.EPERM), ("mount", (0,) * 5, errno.EPERM), ("clone3", (0, 0), errno.ENOSYS),
        ("ptrace", (0,), errno.EPERM), ("keyctl", (0,), errno.EPERM), ("bpf", (0, 0, 0), errno.EPERM),
    ]  # fmt: skip
    child = os.fork()
    if child == 0:
        libc.syscall("prctl", 38, 1, 0, 0, 0)
        libc.syscall(
            "seccomp",
            1,
            seccomp.LOAD_FLAGS,
            struct.pack("HxxxxxxQ", len(program) // 8, libc.address(program)),
        )
        numbers = syscall_names.numbers(os.uname().machine)
        wrong = [
            name
            for name, arguments, wanted in calls
            if libc.raw(numbers[name], *arguments) != -wanted
        ]
        wrong += ["600"] if libc.raw(600) != -errno.ENOSYS else []
        os._exit(len(wrong))

    assert os.waitpid(child, 0)[1] == 0
