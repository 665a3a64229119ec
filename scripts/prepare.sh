# Sourced by scripts/demo and scripts/test: find or install what they need, saying so, never twice.
# Sets $here (the checkout), $venv, and defines: say, as_root, have_root, need PROGRAM PACKAGE, install, make_venv EXTRA.

here=$(CDPATH= cd -- "$(dirname -- "$0")/.." && pwd)
wanted=""

say() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }

have_root() { [ "$(id -u)" = 0 ] || { command -v sudo >/dev/null 2>&1 && sudo -n true 2>/dev/null; }; }

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi; }

# need PROGRAM PACKAGE: remember PACKAGE if PROGRAM is nowhere to be found (sbin folders count).
need() {
    PATH="$PATH:/usr/sbin:/sbin" command -v "$1" >/dev/null 2>&1 || wanted="$wanted $2"
}

# install: get everything that `need` found missing, in one go.
install() {
    [ -n "$wanted" ] || return 0
    if ! command -v apt-get >/dev/null 2>&1 || ! have_root; then
        say "missing:$wanted (install these packages, then run this again)"
        return 1
    fi
    say "installing:$wanted"
    as_root apt-get -qq update
    # shellcheck disable=SC2086 # a list of package names
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends install $wanted >/dev/null
    wanted=""
}

python_ok() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

# make_venv EXTRA: a virtual environment with mktemplate in it, editable, so that it follows the checkout.
make_venv() {
    python=""
    for candidate in ${PYTHON:-} python3 /usr/bin/python3; do
        if python_ok "$candidate"; then python=$candidate; break; fi
    done
    if [ -z "$python" ]; then
        say "needs Python 3.11 or newer"
        exit 1
    fi
    if [ -w "$here" ]; then venv=$here/.venv; else venv=${XDG_CACHE_HOME:-$HOME/.cache}/mktemplate/venv; fi
    stamp=$venv/.installed$1
    if [ -x "$venv/bin/mktemplate" ] && [ -e "$stamp" ] && cmp -s "$here/pyproject.toml" "$stamp"; then return 0; fi
    if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
        need ensurepip "python3-venv"
        install || exit 1
    fi
    say "making $venv"
    [ -x "$venv/bin/python3" ] || "$python" -m venv "$venv"
    "$venv/bin/python3" -m pip --quiet --disable-pip-version-check install --editable "$here$1"
    cp "$here/pyproject.toml" "$stamp"
}
