"""Two programs that scripts call, answered at once where they have nothing to do.

What dpkg-maintscript-helper(1) mends was left by an earlier version of the package; a layer's packages are new. Yet
each call is a shell that reads 600 lines and starts dpkg to look at a version: iproute2 alone makes 22 of them. What
invoke-rc.d(8) is asked to start or stop, policy-rc.d denies; until it knows that, it starts six programs.

The shims, found first in PATH, end where the originals would after all their checks, with the same words; whatever else
they are asked, they become the original.
"""

from __future__ import annotations

import os

from provisioner.inside import is_there, put

POLICY = b"#!/bin/sh\nexit 101\n"  # the policy-rc.d that lets nothing start

# Its arguments: a command, one or two of its own, a version and a package where they are given, `--`, the script's own.
# A version that is unlike most, as one that ends in a hyphen, is for dpkg to judge.
_HELPER = b"""\
#!/bin/sh
is_needless() {
    case $1 in
    rm_conffile | dir_to_symlink | symlink_to_dir | mv_conffile) ;;
    *) return 1 ;;
    esac
    case $2 in
    /*[!/]) ;;
    *) return 1 ;;
    esac
    backup=$2.dpkg-backup
    case $1 in
    rm_conffile) shift 2 ;;
    mv_conffile)
        case ${3-} in
        /*) shift 3 ;;
        *) return 1 ;;
        esac
        ;;
    *)
        case ${3-} in
        '' | --) return 1 ;;
        *) shift 3 ;;
        esac
        ;;
    esac
    case ${1#[0-9]:} in
    '' | *[!A-Za-z0-9.+~-]* | *-) [ "${1-}" = -- ] || return 1 ;;
    [0-9]*) shift ;;
    *) return 1 ;;
    esac
    if [ "${1-}" != -- ] && [ "${2-}" = -- ]; then shift; fi
    [ "${1-}" = -- ] && [ -z "${3-}" ] || return 1
    case ${DPKG_MAINTSCRIPT_PACKAGE:+$DPKG_MAINTSCRIPT_NAME}:${2-} in
    preinst:install | postinst:configure) ;;
    *) return 1 ;;
    esac
    [ -z "${DPKG_ROOT-}${DPKG_DEBUG-}" ] && [ ! -e "$backup" ] && [ ! -h "$backup" ]
}
is_needless "$@" && exit 0
exec /usr/bin/dpkg-maintscript-helper "$@"
"""

# Outside of systemd and openrc, with no runlevel(8) to ask, it does nothing but ask the policy, whatever the action is.
_INVOKE = b"""\
#!/bin/sh
quiet=
say() { [ -n "$quiet" ] || echo "invoke-rc.d: $*" >&2; }
is_denied() {
    [ -z "${DPKG_ROOT-}" ] && [ ! -d /run/systemd/system ] && [ ! -f /run/openrc/softlevel ] &&
    [ ! -x /sbin/runlevel ] && [ -x /usr/sbin/policy-rc.d ] &&
    { read -r first && read -r second; } </usr/sbin/policy-rc.d && [ "$first $second" = '#!/bin/sh exit 101' ]
}
answer() {
    while :; do
        case ${1-} in
        --quiet) quiet=yes ;;
        --skip-systemd-native) ;;
        *) break ;;
        esac
        shift
    done
    [ $# = 2 ] || return
    for word; do
        case $word in '' | -* | *[!A-Za-z0-9@._-]*) return ;; esac
    done
    is_denied || return
    [ -f "/etc/init.d/$1" ] || say "unknown initscript, /etc/init.d/$1 not found."
    say "could not determine current runlevel"
    [ ! -x "/etc/init.d/$1" ] || say "policy-rc.d denied execution of $2."
    [ "$2" = status ] || exit 0
    say 'emulating initscript action "status", returning "unknown"'
    exit 4
}
answer "$@"
exec /usr/sbin/invoke-rc.d "$@"
"""

_SHIMS = (
    (b"/usr/bin/dpkg-maintscript-helper", _HELPER),
    (b"/usr/sbin/invoke-rc.d", _INVOKE),
)


def lay(shims: bytes) -> None:
    """Lay the shims into the folder `shims`, where the root has what they stand for. Runs inside the root."""
    for program, shim in _SHIMS:
        if is_there(program):
            put(shims + b"/" + os.path.basename(program), shim, 0o755)
