"""dpkg-maintscript-helper(1), answered at once where it has nothing to do.

What it mends was left by an earlier version of the package; a layer's packages are new. Yet each call is a shell that
reads 600 lines and starts dpkg to look at a version: iproute2 alone makes 22 of them. The shim, found first in PATH,
ends where the original would after all its checks; whatever else it is asked, it becomes the original.
"""

from __future__ import annotations

from provisioner.inside import is_there, put

_HELPER = b"/usr/bin/dpkg-maintscript-helper"

# Its arguments: a command, one or two of its own, a version and a package where they are given, `--`, the script's own.
# A version that is unlike most, as one that ends in a hyphen, is for dpkg to judge.
_SHIM = b"""\
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


def lay(shims: bytes) -> None:
    """Lay the shim into the folder `shims`, where the root has what it stands for. Runs inside the root."""
    if is_there(_HELPER):
        put(shims + b"/dpkg-maintscript-helper", _SHIM, 0o755)
