"""The seccomp profiles of our own containers, written as LXC's v2 text, so that liblxc confines them alike.

Base: the names that moby's default profile allows without condition (moby/profiles, seccomp/default.json), less
what security.md 2.3.1 takes out. What depends on an argument is written as rules that never overlap, one per
allowed value: libseccomp ors rules for one system call, so two "not equal" rules would allow everything.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

from runtime.errors import ConfigError

PROFILES = ("service", "login", "build", "system")
GRANTS = frozenset({"seccomp:ptrace", "seccomp:mknod"})

_SECTIONS = {"x86_64": "x86_64", "aarch64": "arm64"}
_WORD = 0xFFFFFFFF  # the kernel looks at an int argument's low half only; so must a rule
_NEW_NAMESPACES = 0x7E020000  # CLONE_NEW*
_EPERM, _ENOSYS, _EAFNOSUPPORT = 1, 38, 97

_ALWAYS = """
    accept accept4 access adjtimex alarm bind brk cachestat capget capset chdir chmod chown
    chown32 clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime
    clock_gettime64 clock_nanosleep clock_nanosleep_time64 close close_range connect
    copy_file_range creat dup dup2 dup3 epoll_create epoll_create1 epoll_ctl epoll_ctl_old
    epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old eventfd eventfd2 execve execveat exit
    exit_group faccessat faccessat2 fadvise64 fadvise64_64 fallocate fchdir fchmod fchmodat
    fchmodat2 fchown fchown32 fchownat fcntl fcntl64 fdatasync fgetxattr flistxattr flock fork
    fremovexattr fsetxattr fstat fstat64 fstatat64 fstatfs fstatfs64 fsync ftruncate ftruncate64
    futex futex_requeue futex_time64 futex_wait futex_waitv futex_wake futimesat getcpu getcwd
    getdents getdents64 getegid getegid32 geteuid geteuid32 getgid getgid32 getgroups
    getgroups32 getitimer getpeername getpgid getpgrp getpid getppid getpriority getrandom
    getresgid getresgid32 getresuid getresuid32 getrlimit get_robust_list getrusage getsid
    getsockname getsockopt get_thread_area gettid gettimeofday getuid getuid32 getxattr
    getxattrat inotify_add_watch inotify_init inotify_init1 inotify_rm_watch io_cancel
    io_destroy io_getevents io_pgetevents io_pgetevents_time64 ioprio_get ioprio_set io_setup
    io_submit ipc kill landlock_add_rule landlock_create_ruleset landlock_restrict_self lchown
    lchown32 lgetxattr link linkat listen listmount listxattr listxattrat llistxattr _llseek
    lremovexattr lseek lsetxattr lstat lstat64 madvise map_shadow_stack membarrier memfd_create
    mincore mkdir mkdirat mlock mlock2 mlockall mmap mmap2 mprotect mq_getsetattr mq_notify
    mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend mq_timedsend_time64 mq_unlink
    mremap mseal msgctl msgget msgrcv msgsnd msync munlock munlockall munmap name_to_handle_at
    nanosleep newfstatat _newselect open openat openat2 pause pidfd_open pidfd_send_signal pipe
    pipe2 pkey_alloc pkey_free pkey_mprotect poll ppoll ppoll_time64 pread64 preadv preadv2
    prlimit64 process_mrelease pselect6 pselect6_time64 pwrite64 pwritev pwritev2 read readahead
    readlink readlinkat readv recv recvfrom recvmmsg recvmmsg_time64 recvmsg removexattr
    removexattrat rename renameat renameat2 restart_syscall riscv_hwprobe rmdir rseq
    rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend
    rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo sched_getaffinity sched_getattr
    sched_getparam sched_get_priority_max sched_get_priority_min sched_getscheduler
    sched_rr_get_interval sched_rr_get_interval_time64 sched_setaffinity sched_setattr
    sched_setparam sched_setscheduler sched_yield seccomp select semctl semget semop semtimedop
    semtimedop_time64 send sendfile sendfile64 sendmmsg sendmsg sendto setfsgid setfsgid32
    setfsuid setfsuid32 setgid setgid32 setgroups setgroups32 setitimer setpgid setpriority
    setregid setregid32 setresgid setresgid32 setresuid setresuid32 setreuid setreuid32
    setrlimit set_robust_list setsid setsockopt set_thread_area set_tid_address setuid setuid32
    setxattr setxattrat shmat shmctl shmdt shmget shutdown sigaltstack signalfd signalfd4
    sigprocmask sigreturn socketpair splice stat stat64 statfs statfs64 statmount statx symlink
    symlinkat sync sync_file_range syncfs sysinfo tee tgkill time timer_create timer_delete
    timer_getoverrun timer_gettime timer_gettime64 timer_settime timer_settime64 timerfd_create
    timerfd_gettime timerfd_gettime64 timerfd_settime timerfd_settime64 times tkill truncate
    truncate64 ugetrlimit umask uname unlink unlinkat uretprobe utime utimensat utimensat_time64
    utimes vfork wait4 waitid waitpid write writev
    chroot
"""
_ALWAYS_ON = {"x86_64": "arch_prctl", "aarch64": ""}
_MOUNTING = """
    mount umount2 move_mount open_tree open_tree_attr fsopen fsconfig fsmount fspick mount_setattr pivot_root
    unshare setns clone clone3 setdomainname sethostname
"""  # `system` only: its user namespace guards them
_TRACING = "ptrace process_vm_readv process_vm_writev"
_TIOCSTI, _TIOCLINUX = 0x5412, 0x541C
_PR_SET_MM, _PR_SET_SPECULATION_CTRL, _PR_SET_PTRACER = 35, 53, 0x59616D61
_PR_SET_VMA, _PR_GET_AUXV = 0x53564D41, 0x41555856
_PERSONALITIES = (0, 8, 0x20000, 0x20008, 0xFFFFFFFF)
_S_IFMT = 0o170000
_PLAIN_NODES = (0, 0o100000, 0o010000, 0o140000)  # none given, regular, fifo, socket
_GROUPS = {"setgroups", "setgroups32"}
_AF_UNIX, _AF_INET, _AF_INET6, _AF_NETLINK = 1, 2, 10, 16
_ROUTES, _UEVENTS = (
    0,
    15,
)  # NETLINK_ROUTE; NETLINK_KOBJECT_UEVENT, without which logind does not start


def default_profile(
    profile: str = "service",
    grants: frozenset[str] = frozenset(),
    machine: str = os.uname().machine,
    *,
    single_id: bool = False,
) -> str:
    """Return the text of `profile` for `machine`; ConfigError (E_PARAM) for one we do not know.

    `grants`: `seccomp:ptrace` lets processes trace each other, `seccomp:mknod` make device nodes. With a `single_id`
    setgroups(2) does nothing and succeeds: the kernel refuses it, and services give groups up before they serve.
    """
    if profile not in PROFILES:
        raise ConfigError("E_PARAM", profile, f"is no profile ({', '.join(PROFILES)})")
    if machine not in _SECTIONS:
        raise ConfigError("E_PARAM", machine, f"has no seccomp profile ({', '.join(_SECTIONS)})")
    lines = (
        "2",
        f"allowlist errno {_EPERM}",
        f"[{_SECTIONS[machine]}]",
        *sorted({*_plain(profile, grants, machine)} - (_GROUPS if single_id else set())),
        *(f"{name} errno 0" for name in (sorted(_GROUPS) if single_id else ())),
        *(
            line.replace(" [", " allow [", 1) if " errno " not in line else line
            for line in _conditional(profile, grants)
        ),
    )  # liblxc reads the word before the arguments as the action, so it must stand there
    return "\n".join(lines) + "\n"


def _plain(profile: str, grants: frozenset[str], machine: str) -> Iterator[str]:
    yield from _ALWAYS.split()
    yield from _ALWAYS_ON[machine].split()
    if profile == "system":
        yield from _MOUNTING.split()
    if "seccomp:ptrace" in grants:
        yield from _TRACING.split()
    if "seccomp:mknod" in grants:
        yield from ("mknod", "mknodat")


def _conditional(profile: str, grants: frozenset[str]) -> Iterator[str]:
    if profile != "system":
        yield f"clone {_masked(0, 0, _NEW_NAMESPACES)}"
        yield f"clone3 errno {_ENOSYS}"  # its flags lie in memory; glibc falls back to clone
    if "seccomp:mknod" not in grants:
        for name, argument in (("mknod", 1), ("mknodat", 2)):
            yield from (f"{name} {_masked(argument, kind, _S_IFMT)}" for kind in _PLAIN_NODES)
    yield from _socket((_ROUTES, _UEVENTS) if profile == "system" else (_ROUTES,))
    yield from (f"personality {_masked(0, value, _WORD)}" for value in _PERSONALITIES)
    for value, mask in _all_but((_TIOCSTI, _TIOCLINUX)):
        yield f"ioctl {_masked(1, value, mask)}"
    yield from _prctl()


def _socket(netlink_protocols: tuple[int, ...]) -> Iterator[str]:
    """Allow four families, of netlink these protocols; say of all others that they do not exist."""
    for family in (_AF_UNIX, _AF_INET, _AF_INET6):
        yield f"socket {_masked(0, family, _WORD)}"
    netlink = _masked(0, _AF_NETLINK, _WORD)
    for protocol in netlink_protocols:
        yield f"socket {netlink} [2,{protocol},SCMP_CMP_EQ]"
    if len(netlink_protocols) == 1:
        yield f"socket errno {_EAFNOSUPPORT} {netlink} [2,{netlink_protocols[0]},SCMP_CMP_NE]"
    else:
        for value, mask in _all_but(netlink_protocols):
            yield f"socket errno {_EAFNOSUPPORT} {netlink} {_masked(2, value, mask)}"
    for value, mask in _all_but((_AF_UNIX, _AF_INET, _AF_INET6, _AF_NETLINK)):
        yield f"socket errno {_EAFNOSUPPORT} {_masked(0, value, mask)}"


def _prctl() -> Iterator[str]:
    """Allow what is not PR_SET_MM, not a weaker speculation control, not a tracer of any kin."""
    for value, mask in _all_but((_PR_SET_MM, _PR_SET_SPECULATION_CTRL), bits=7):
        yield f"prctl {_masked(0, value, mask | _WORD & ~127)}"
    for option in (_PR_SET_VMA, _PR_GET_AUXV):
        yield f"prctl {_masked(0, option, _WORD)}"
    for setting in (4, 8, 16):  # PR_SPEC_DISABLE, _FORCE_DISABLE, _DISABLE_NOEXEC
        yield f"prctl {_masked(0, _PR_SET_SPECULATION_CTRL, _WORD)} [2,{setting},SCMP_CMP_EQ]"
    yield f"prctl {_masked(0, _PR_SET_PTRACER, _WORD)} [1,4194304,SCMP_CMP_LE]"  # a pid, not PR_SET_PTRACER_ANY


def _masked(argument: int, value: int, mask: int) -> str:
    return f"[{argument},{value},SCMP_CMP_MASKED_EQ,{mask}]"


def _all_but(values: Iterable[int], bits: int = 32) -> list[tuple[int, int]]:
    """Return (value, mask) pairs that match every number of `bits` bits but `values`, each by one pair only.

    At each bit, what has another value there than all that begin like it is one pair.
    """
    values, pairs = tuple(values), []
    for bit in range(bits):
        begins = {value >> bit for value in values}
        mask = (1 << bits) - (1 << bit)
        pairs += [((begin ^ 1) << bit, mask) for begin in begins if begin ^ 1 not in begins]
    return sorted(pairs)
