"""Layers for real: a base from the mirror, hostile packages on top, trees over both."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from provisioner import collect, content, recovery, tree
from provisioner.configure import configure
from provisioner.errors import ConfigureFailed, ProvisionError
from provisioner.flatten import flatten
from provisioner.index import Package
from provisioner.provision import Facts, Tools, package_layer, tree_layer
from provisioner.sandbox import Root
from provisioner.store import Layer, Store
from provisioner.unpack import unpack
from runtime.idmap import single_range
from runtime.sandbox import Finished, KernelSandbox
from tests.hostile import HostileDeb, cached, directory, file

pytestmark = pytest.mark.system

FACTS = Facts(distro="debian", release="trixie", arch="amd64")
SANDBOX = KernelSandbox(single_range(1_000_000))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """A store with the Essential set of the default release in it."""
    place = tmp_path_factory.mktemp("provision")
    place.chmod(0o755)
    subprocess.run(
        [sys.executable, "-m", "mktemplate", "create", "base", "b", "--path", place, "--no-sync"],
        check=True, timeout=300, capture_output=True,
    )  # fmt: skip
    store = Store(place / ".store")
    yield store
    store.close()


@pytest.fixture
def base(made: Store) -> Layer:
    [found] = (layer for layer in made.layers() if layer.origin == "base")
    return found


def script(name: str, body: str, extra: Sequence[str] = (), **fields: str) -> HostileDeb:
    """Return a package whose postinst (or `name`'s last word) is `body`."""
    package, _, kind = name.partition(".")
    control = [file(f"./{kind or 'postinst'}".encode(), f"#!/bin/sh\n{body}\n".encode(), 0o755)]
    items = [directory(b"./usr/share/"), file(f"./usr/share/{package}".encode())]
    return HostileDeb(name=package, control=control, items=items, fields=fields)


class PlainPerl(KernelSandbox):
    """A sandbox for whose scripts no perl stays: none does where a sandbox is weaker than asked."""

    @property
    def degraded(self) -> str:
        return "without the resident perl"


def build(store: Store, base: Layer, *debs: HostileDeb, sandbox: KernelSandbox = SANDBOX) -> Layer:
    packages = [cached(deb, store.cache) for deb in debs]
    tools = Tools(store=store, sandbox=sandbox)
    return layer_of(packages, [base], tools)


def layer_of(packages: Sequence[Package], below: Sequence[Layer], tools: Tools) -> Layer:
    with package_layer(packages, below, FACTS, tools, lambda packages: None) as made:
        pass
    return tools.store.held(made.digest)


def run(store: Store, layers: Sequence[Layer], command: str) -> Finished:
    """Run `command` in the sandbox over `layers`, bottom first."""
    lowers = tuple(layer.path for layer in reversed(layers))
    with store.draft("look") as draft:
        root = Root(upper=draft.root, lowers=lowers, work=draft.work)
        environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
        return SANDBOX.run(root, ["/bin/sh", "-c", command], environment=environment, timeout=60)


def staging(store: Store) -> list[str]:
    return os.listdir(store.path / "staging")


def test_the_base_is_whole_and_clean(made: Store, base: Layer) -> None:
    looked = run(made, [base], "dpkg --audit; dpkg -l | grep -c ^ii; dpkg -V")

    assert (looked.status, int(looked.output)) == (0, len(os.listdir(made.cache / "tar")))
    for gone in (".mktemplate", "usr/sbin/policy-rc.d", "var/log/dpkg.log", "etc/passwd-"):
        assert not (base.path / gone).exists()
    assert stat.S_IMODE(os.lstat(base.path / "tmp").st_mode) == 0o1777


def test_a_second_build_has_the_same_bytes(made: Store, base: Layer) -> None:
    subprocess.run(
        [sys.executable, "-m", "mktemplate", "create", "base", "b", "--no-sync", "--path",
         made.path.parent / "second"],
        check=True, timeout=300, capture_output=True,
    )  # fmt: skip

    [other] = (
        layer
        for layer in Store(made.path.parent / "second/.store").layers()
        if layer.origin == "base"
    )
    assert (other.digest, other.content) == (base.digest, base.content)


def test_a_perl_that_stays_does_what_one_of_their_own_does_for_scripts(
    made: Store, base: Layer
) -> None:
    body = """
        cd /usr/share; umask 027
        here=/.mktemplate/perl/deb-systemd-helper
        while [ -e $here.server ] && ! [ -S $here.door ]; do sleep 0.01; done
        [ -S $here.door ]; echo $? >/var/lib/plain
        {
            deb-systemd-helper was-enabled none.service; echo $?
            deb-systemd-helper bogus "two words" ""; echo $?
            LC_ALL=C deb-systemd-helper enable none.service; echo $?
            deb-systemd-helper --user enable none.service; echo $?
            deb-systemd-helper unmask none.service 2>&1 | cat; echo $?
            setpriv --reuid 33 deb-systemd-helper enable none.service; echo $?
            DPKG_MAINTSCRIPT_PACKAGE= deb-systemd-helper enable none.service; echo $?
        } >/var/lib/told 2>&1 </dev/null"""

    stays = build(made, base, script("stays", body)).path
    plain = build(
        made, base, script("plain", body), sandbox=PlainPerl(single_range(1_000_000))
    ).path

    assert [(path / "var/lib/plain").read_text() for path in (stays, plain)] == ["0\n", "1\n"]
    assert (stays / "var/lib/told").read_text() == (plain / "var/lib/told").read_text()
    assert (stays / "var/lib/told").read_text().count("\n") > 7
    assert not (stays / ".mktemplate").exists()


def test_scripts_run_and_their_triggers_too(made: Store, base: Layer) -> None:
    heard = HostileDeb(
        name="listener",
        items=[directory(b"./usr/share/")],
        control=[
            file(b"./triggers", b"interest-noawait /usr/share/heard\n"),
            file(b"./postinst", b'#!/bin/sh\necho "$1 $2" >>/var/lib/listener\n', 0o755),
        ],
    )
    listener = build(made, base, heard)
    packages = [
        cached(HostileDeb(name="speaker", items=[file(b"./usr/share/heard/x")]), made.cache)
    ]
    tools = Tools(store=made, sandbox=SANDBOX)

    speaker = layer_of(packages, [base, listener], tools)

    assert (speaker.path / "var/lib/listener").read_text() == (
        "configure \ntriggered /usr/share/heard\n"
    )


def test_a_conffile_is_placed_by_dpkg(made: Store, base: Layer) -> None:
    deb = HostileDeb(
        name="conffile",
        items=[directory(b"./etc/"), file(b"./etc/mine.conf", b"as packaged")],
        control=[file(b"./conffiles", b"/etc/mine.conf\n")],
    )

    layer = build(made, base, deb)

    assert (layer.path / "etc/mine.conf").read_bytes() == b"as packaged"
    assert not (layer.path / "etc/mine.conf.dpkg-new").exists()


def test_what_a_package_pre_depends_on_is_configured_before_its_preinst(
    made: Store, base: Layer
) -> None:
    from provisioner.deb.relation import parse_clauses

    needed = cached(script("needed", "touch /var/lib/needed-is-ready"), made.cache)
    needy = cached(script("needy.preinst", "test -e /var/lib/needed-is-ready"), made.cache)
    needy = Package(
        **{field: getattr(needy, field) for field in ("name", "version", "arch", "sha256", "size")},
        pre_depends=parse_clauses("needed"),
    )
    tools = Tools(store=made, sandbox=SANDBOX)

    layer = layer_of([needy, needed], [base], tools)

    assert "Status: install ok installed" in (layer.path / "var/lib/dpkg/status").read_text()


def test_a_file_of_the_base_can_be_diverted(made: Store, base: Layer) -> None:
    divert = "dpkg-divert --package diverter --add --rename --divert /usr/bin/yes.real /usr/bin/yes"
    deb = HostileDeb(
        name="diverter",
        items=[directory(b"./usr/bin/"), file(b"./usr/bin/yes", b"#!/bin/sh\necho no\n", 0o755)],
        control=[file(b"./preinst", f"#!/bin/sh\n{divert}\n".encode(), 0o755)],
    )

    around = [
        script(f"{name}.preinst", "grep -q $DPKG_MAINTSCRIPT_PACKAGE /var/lib/dpkg/tmp.ci/control")
        for name in ("before", "later")
    ]

    layer = build(made, base, around[0], deb, around[1])

    assert not os.path.lexists(layer.path / "var/lib/dpkg/tmp.ci")
    looked = run(
        made,
        [base, layer],
        "yes; yes.real | head -n 1; dpkg --audit; dpkg-divert --truename /usr/bin/yes",
    )
    assert looked.output == (b"no\ny\n/usr/bin/yes.real\n")


@pytest.mark.parametrize(
    ("deb", "code", "subject", "detail"),
    [
        (script("fails", "echo why; exit 3"), "E_SCRIPT_FAILED", "fails.postinst", "exit 3\n"),
        (script("preinst.preinst", "exit 4"), "E_SCRIPT_FAILED", "preinst.preinst", "exit 4\n"),
        (script("dies", "kill -9 $$"), "E_SCRIPT_FAILED", "dies.postinst", "signal (Killed)"),
        (script("reads", "read x && exit 9; exit 5"), "E_SCRIPT_FAILED", "reads.postinst", "exit 5\n"),
        (script("loud", "seq 2000000; exit 6"), "E_SCRIPT_FAILED", "loud.postinst", "exit 6\n"),
        (script("mounts", "mount -t tmpfs none /mnt"), "E_SCRIPT_FAILED", "mounts.postinst", "exit "),
        (script("clock", "date -s 2001-01-01 || exit 7"), "E_SCRIPT_FAILED", "clock.postinst", "exit 7"),
        (script("leaves", "setsid sleep 1000 >/dev/null 2>&1 &"),
         "E_SCRIPT_LEFTOVER", "leaves.postinst", "left running: s"),
        (script("wipes", "rm -rf --no-preserve-root / 2>/dev/null; exit 1"),
         "E_SCRIPT_FAILED", "wipes.postinst", ""),
        (script("hides", "kill -9 -1; exit 8"), "E_SCRIPT_FAILED", "", ""),
    ],
    ids=lambda value: value.name if isinstance(value, HostileDeb) else "",
)  # fmt: skip
def test_a_hostile_script_fails_alone(
    made: Store, base: Layer, deb: HostileDeb, code: str, subject: str, detail: str
) -> None:
    started = time.time()

    with pytest.raises(ConfigureFailed) as failed:
        build(made, base, deb)

    assert failed.value.code == code
    assert subject in failed.value.subject
    assert detail in failed.value.detail
    assert staging(made) == []
    assert collect.verify(made).damaged == ()
    assert abs(time.time() - started) < 60


def test_a_perl_that_is_a_script_is_asked_for_nothing_new(made: Store, base: Layer) -> None:
    wrap = (
        "mv /usr/bin/perl /usr/bin/perl.real\n"
        "printf '#!/bin/sh\\nexec /usr/bin/perl.real \"$@\"\\n' >/usr/bin/perl; chmod 755 /usr/bin/perl"
    )
    odd = build(made, base, script("odd", wrap))
    ask = ". /usr/share/debconf/confmodule; db_version 2.0; cat /usr/share/debconf/frontend >/asked"
    package = cached(script("asks", ask), made.cache)

    layer = layer_of([package], [base, odd], Tools(store=made, sandbox=SANDBOX))

    frontend = "usr/share/debconf/frontend"
    assert (layer.path / "asked").read_bytes() == (base.path / frontend).read_bytes()
    assert not (layer.path / frontend).exists()


def test_a_script_that_hangs_is_ended(made: Store, base: Layer) -> None:
    package = cached(script("hangs", "sleep 1000"), made.cache)
    with made.draft("service") as draft:
        root = Root(upper=draft.root, lowers=(base.path,), work=draft.work)
        found = unpack([package], root, cache=made.cache, sandbox=SANDBOX)

        with pytest.raises(ConfigureFailed) as failed:
            configure(
                root,
                [package],
                sandbox=SANDBOX,
                unpack=lambda: {"newest": found.newest},
                epoch=lambda newest: newest,
                timeout=1.5,
            )

    assert (failed.value.code, failed.value.subject) == ("E_SCRIPT_TIMEOUT", "hangs.postinst")


def test_a_killed_build_leaves_no_process_and_nothing_after_recover(
    made: Store, base: Layer
) -> None:
    deb = script("orphans", "sleep 987 & setsid sleep 987 & echo up; sleep 987")
    package = cached(deb, made.cache)
    code = (
        "import sys; from pathlib import Path\n"
        "from provisioner.index import Package\n"
        "from provisioner.provision import *\n"
        "from provisioner.store import Store\n"
        "from runtime.idmap import single_range; from runtime.sandbox import KernelSandbox\n"
        f"store = Store(Path({str(made.path)!r}))\n"
        f"base = store.layer({base.digest!r})\n"
        "facts = Facts(distro='debian', release='trixie', arch='amd64')\n"
        "tools = Tools(store=store, sandbox=KernelSandbox(single_range(1_000_000)))\n"
        f"package = Package(name='orphans', version='1', arch='all', sha256={package.sha256!r})\n"
        "with package_layer([package], [base], facts, tools, lambda packages: None): pass\n"
    )
    builder = subprocess.Popen([sys.executable, "-c", code], cwd=Path.cwd())
    deadline = time.monotonic() + 30
    while not _processes("sleep\0987") and time.monotonic() < deadline:
        time.sleep(0.02)  # for the script to have come so far
    assert _processes("sleep\0987")

    builder.send_signal(signal.SIGKILL)
    builder.wait()

    deadline = time.monotonic() + 2
    while _processes("sleep\0987") and time.monotonic() < deadline:
        time.sleep(0.02)  # for the kernel to take the namespace down
    assert not _processes("sleep\0987")
    recovery.recover(made)
    assert staging(made) == []


def _processes(command: str) -> list[int]:
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            if Path(f"/proc/{pid}/cmdline").read_text().rstrip("\0") == command:
                found.append(int(pid))
        except (FileNotFoundError, ProcessLookupError, UnicodeDecodeError):
            continue
    return found


TREE = """\
g web 4000
u web 4000:4000 "The web" /srv/web
m web adm
d /srv/web 0750 web web
f+ /srv/web/index.html 0640 web web - hello\\n
f /etc/hostname 0600 - - - not written
f /etc/motd 0600 root adm - not written, but its mode is
L /etc/alternatives/mine - - - - /bin/sh
L+ /etc/issue - - - - issue.net
C /srv/skel - - - - /etc/skel
p /srv/pipe 0600
z /etc/shadow 0600
d /lib/mine
d /run/gone
"""


def test_a_tree_is_made_over_the_packages(made: Store, base: Layer) -> None:
    parsed = tree.parse(TREE, {}, "tree.j2")
    tools = Tools(store=made, sandbox=SANDBOX)

    layer = tree_layer(parsed, [base], tools)

    looked = run(
        made,
        [base, layer],
        "stat -c '%A %U:%G %n' /srv/web /srv/web/index.html /srv/pipe /etc/shadow; id -nG web; "
        "readlink /etc/issue /etc/alternatives/mine; ls -A /srv/skel; ls -d /usr/lib/mine; "
        "ls /run; grep -h web /etc/gshadow",
    )
    assert looked.output.decode().splitlines() == [
        "drwxr-x--- web:web /srv/web",
        "-rw-r----- web:web /srv/web/index.html",
        "prw------- root:root /srv/pipe",
        "-rw------- root:shadow /etc/shadow",
        "web adm",
        "issue.net",
        "/bin/sh",
        ".bash_logout",
        ".bashrc",
        ".profile",
        "/usr/lib/mine",
        "web:!*::",
    ]
    assert tree_layer(parsed, [base], tools) == layer


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("d /srv/x 0755 nobody-here", "E_USER"),
        ("f /etc/passwd/x", "E_TEMPLATE_PATH"),
        ("f+ /etc/skel", "E_ROOTFS_FILE"),
        ("C /srv/x - - - - /no/such/place", "E_TEMPLATE_PATH"),
        ("c /srv/null - - - - 1:3", "E_ROOTFS_FILE"),
        ("u other 0", "E_USER"),
    ],
)
def test_a_tree_that_does_not_fit_is_refused(
    made: Store, base: Layer, line: str, code: str
) -> None:
    with pytest.raises(ProvisionError) as refused:
        tree_layer(tree.parse(line, {}, "tree.j2"), [base], Tools(store=made, sandbox=SANDBOX))

    assert refused.value.code == code
    assert staging(made) == []


def test_a_tree_alone_needs_no_packages(made: Store) -> None:
    parsed = tree.parse('u root 0 "" /root /bin/sh\nf /etc/x 0600 root root', {}, "tree.j2")

    layer = tree_layer(parsed, [], Tools(store=made, sandbox=SANDBOX))

    assert (layer.path / "etc/passwd").read_text() == "root:x:0:0::/root:/bin/sh\n"


def test_flat_is_what_the_overlay_shows(made: Store, base: Layer, tmp_path: Path) -> None:
    deb = script(
        "changes",
        "rm /etc/issue; rm -rf /usr/share/doc; mkdir /usr/share/doc; touch /usr/share/doc/new; "
        "rm -rf /etc/skel; ln -s /etc /etc/skel; ln /usr/share/changes /usr/share/second; "
        "chown 33:44 /usr/share/changes; chmod 4755 /usr/share/changes",
    )
    layers = [base, build(made, base, deb)]
    look = (
        "cd / && find . -xdev -mindepth 1 -path ./dev -prune -o -path ./proc -prune -o -path ./tmp -prune -o"
        " -printf '%P %y %m %U:%G %T@ %l\\n' | sort; find . -xdev -type f -path './usr/*' | sort | xargs md5sum"
    )

    flatten(layers, tmp_path)

    flat = SANDBOX.run(
        Root(upper=tmp_path), ["/bin/sh", "-c", f"({look}) | md5sum"], environment={}, timeout=60
    )
    assert flat.output == run(made, layers, f"({look}) | md5sum").output
    assert (tmp_path / "usr/share/second").samefile(tmp_path / "usr/share/changes")
    assert os.listdir(tmp_path / "usr/share/doc") == ["new"]
    assert not any(stat.S_ISCHR(entry.status.st_mode) for entry in content.walk(tmp_path))
