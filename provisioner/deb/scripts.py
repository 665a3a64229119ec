"""Maintainer scripts: the preinsts that unpacking would have run, then one real `dpkg --configure -a`.

dpkg orders the packages, places conffiles and runs triggers; it costs 0.1 s and nobody else is right about it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from provisioner.tar import printable

BUILD = b"/.mktemplate"
VERSION = BUILD + b"/version"  # of the dpkg inside
EPOCH = BUILD + b"/epoch"  # SOURCE_DATE_EPOCH
QUEUE = (
    BUILD + b"/preinst/"
)  # one numbered directory per preinst, with notes beside it, filled by unpack
DRIVER = BUILD + b"/configure"
SHIMS = BUILD + b"/bin"
LINES = 20  # of a failed script's output

# A perl that stays compiles its program beside what goes on; preinsts have use for the one alone, and two would leave
# them no processor.
# What a package pre-depends on is configured before its preinst (Policy 7.2; adduser for mariadb-server).
# A preinst is run as dpkg runs it: from tmp.ci with the control files beside it, else debconf records no owner. A link
# there is one program for each of them, where a directory that is moved there and deleted again would be two.
SCRIPT = b"""\
set -u
cd /
ci=/var/lib/dpkg/tmp.ci
residents= staying=' '
stay() {
    case $staying in *" $1 "*) return ;; esac
    staying="$staying$1 "
    [ -e "/.mktemplate/perl/$1.server" ] || return
    perl "/.mktemplate/perl/$1.server" </dev/null >/dev/null 2>&1 &
    residents="$residents $!"
}
trap '[ -z "$residents" ] || { kill $residents; wait $residents; } 2>/dev/null' EXIT
stay frontend
read -r unpacked  # until its end
read -r DPKG_RUNNING_VERSION </.mktemplate/version
read -r SOURCE_DATE_EPOCH </.mktemplate/epoch
export DPKG_RUNNING_VERSION SOURCE_DATE_EPOCH
configured=' '
for queued in /.mktemplate/preinst/*/; do
    [ -d "$queued" ] || break
    queued=${queued%/}
    if [ -s "$queued.before" ]; then
        read -r before <"$queued.before"
        pending=
        for name in $before; do
            case $configured in *" $name "*) ;; *) pending="$pending $name" ;; esac
        done
        configured="$configured$before "
        if [ -n "$pending" ]; then
            stay deb-systemd-helper
            dpkg --configure $pending </dev/null || exit
        fi
    fi
    read -r name arch <"$queued.name"
    if [ -e "$queued/package.deb" ]; then
        echo "mktemplate: preinst $name"
        dpkg --unpack "$queued/package.deb" </dev/null || exit
        rm -r "$queued"
        continue
    fi
    ln -sfn "$queued" "$ci"
    echo "mktemplate: preinst $name"
    DPKG_MAINTSCRIPT_PACKAGE=$name DPKG_MAINTSCRIPT_ARCH=$arch DPKG_MAINTSCRIPT_NAME=preinst \\
    DPKG_MAINTSCRIPT_PACKAGE_REFCOUNT=1 DPKG_MAINTSCRIPT_DEBUG=0 DPKG_ADMINDIR=/var/lib/dpkg DPKG_ROOT= \\
    PERL_DL_NONLAZY=1 "$ci/preinst" install </dev/null || {
        echo "mktemplate: preinst $name failed with $?"
        exit 100
    }
done
[ ! -h "$ci" ] || rm "$ci"
stay deb-systemd-helper
dpkg --configure -a </dev/null
"""

_PREINST = re.compile(rb"mktemplate: preinst ([^ \n]+)(?: failed with ([0-9]+))?")
_FAILED = re.compile(rb"dpkg: error processing package ([^ \n]+) \(")
_BEGUN = re.compile(rb"Setting up ([^ \n]+) \(")
_STATUS = re.compile(
    rb" script subprocess (?:returned error exit status ([0-9]+)|was killed by (signal \([^)\n]*\)))"
)
_SCRIPT = re.compile(rb"package ([a-z-]+) script subprocess")
_NAMES = {b"post-installation": "postinst", b"pre-installation": "preinst"}


def environment() -> Mapping[str, str]:
    """Return all that maintainer scripts see of the outside: nothing that differs between hosts or days."""
    return {
        "PATH": f"{SHIMS.decode()}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": "/root",
        "LC_ALL": "C.UTF-8",
        "DEBIAN_FRONTEND": "noninteractive",
        "DEBCONF_NONINTERACTIVE_SEEN": "true",
        "PERL_HASH_SEED": "0",  # debconf writes its database in hash order
    }


def blame(output: bytes) -> tuple[str, str]:
    """Return (package.script, how it ended) of what failed first; of what began last where nothing says so.

    dpkg goes on with other packages after a failure, and what depends on the failed one fails for that.
    """
    package, script, how = "dpkg", "configure", "failed"
    failed = False
    for line in output.split(b"\n"):
        if match := _PREINST.fullmatch(line):
            package, script = printable(match[1]), "preinst"
            how = f"exit {match[2].decode()}" if match[2] else how
        elif match := (_FAILED.match(line) or _BEGUN.match(line)):
            if failed:
                break
            package, script = printable(match[1]), "postinst"
            failed = match.re is _FAILED
        elif match := _STATUS.search(line):
            how = f"exit {match[1].decode()}" if match[1] else printable(match[2])
            named = _SCRIPT.search(line)
            return (
                f"{package}.{_NAMES.get(named[1], printable(named[1])) if named else script}",
                how,
            )
    return f"{package}.{script}", how


def last_lines(output: bytes) -> str:
    """Return the end of a script's output, made printable, a line each."""
    lines = [printable(line) for line in output.rstrip(b"\n").split(b"\n") if line]
    return "\n".join(lines[-LINES:])
