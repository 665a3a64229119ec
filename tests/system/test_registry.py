"""Images from and to a real registry, beside the tools that people use with it: skopeo, buildah, umoci, podman."""

from __future__ import annotations

import json
import os
import resource
import shutil
import socket
import subprocess
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from tests.hostile import file
from tests.image import SYSTEM, Layout, sha256
from tests.system.command import Mkt
from tests.system.registry import PASSWORD, Registry, basic, login, registry, tokens

pytestmark = pytest.mark.system
INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONTAINERFILE = """\
FROM scratch
COPY rootfs/ /
RUN ["/bin/sh","-c","rm /www/gone.html; echo second > /www/index.html"]
ENV GREETING="hello  world " PATH=/bin
USER web:extra
WORKDIR /www/data
EXPOSE 8080
STOPSIGNAL SIGINT
ENTRYPOINT ["/bin/httpd"]
CMD ["-f","-v","-p","8080","-h","/www"]
"""


def run(*argv: str | Path, **environment: str) -> str:
    done = subprocess.run(
        [*map(str, argv)], capture_output=True, text=True, timeout=200, env={**os.environ, **environment}
    )  # fmt: skip
    assert done.returncode == 0, f"{argv}: {done.stderr}"
    return done.stdout


def skopeo(*argv: str | Path) -> str:
    return run("skopeo", "--insecure-policy", *argv)


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory, needs: Callable[..., None]) -> Iterator[Registry]:
    needs("docker-registry", "skopeo")
    with registry(tmp_path_factory.mktemp("hub") / "registry") as made:
        yield made


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, needs: Callable[..., None]) -> Path:
    """An image of two layers that buildah built, as an OCI layout; the second layer hides a file of the first."""
    needs("buildah", "busybox")
    top = tmp_path_factory.mktemp("built")
    rootfs = top / "rootfs"
    for name in ("bin", "etc", "www"):
        (rootfs / name).mkdir(parents=True)
    shutil.copy(shutil.which("busybox") or "", rootfs / "bin/busybox")
    for name in ("sh", "httpd", "id", "env", "pwd", "rm", "cat"):
        (rootfs / "bin" / name).symlink_to("busybox")
    for name, body in (("index.html", "first\n"), ("gone.html", "gone\n")):
        (rootfs / "www" / name).write_text(body)
    (rootfs / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\nweb:x:101:101::/srv:/bin/sh\n")
    (rootfs / "etc/group").write_text("root:x:0:\nweb:x:101:\nextra:x:200:web\n")
    (top / "Containerfile").write_text(CONTAINERFILE)
    store = ("--root", top / "store", "--runroot", top / "run", "--storage-driver", "vfs")
    environment = {"BUILDAH_ISOLATION": "chroot", "TMPDIR": str(top)}
    limits = [*_limit("nofile", resource.RLIMIT_NOFILE), *_limit("nproc", resource.RLIMIT_NPROC)]
    run(
        "buildah", *store, "build", "--layers", "--network", "none", "-q", *limits, "-t", "tiny", top,
        **environment,
    )  # fmt: skip
    run("buildah", *store, "push", "-q", "tiny", f"oci:{top}/layout:tiny", **environment)
    return top / "layout"


def _limit(name: str, kind: int) -> Sequence[str]:
    """Keep buildah from raising what this process may not raise."""
    soft, hard = resource.getrlimit(kind)
    return () if resource.RLIM_INFINITY in (soft, hard) else ("--ulimit", f"{name}={soft}:{hard}")


def test_an_image_of_buildahs_runs_as_it_says(mkt: Mkt, hub: Registry, built: Path) -> None:
    skopeo(
        "copy", "--dest-tls-verify=false", f"oci:{built}:tiny", f"docker://{hub.host}/tests/tiny:1"
    )

    mkt.ok("pull", f"{hub.host}/tests/tiny:1", "--publish", "18123:8080")
    up = mkt.json("up", "tiny")

    with urllib.request.urlopen("http://127.0.0.1:18123/", timeout=10) as answer:
        served = answer.read()
    inside = mkt.ok(
        "exec", "tiny", "--", "/bin/sh", "-c", "id; env; pwd; ls /www; cat /proc/1/cmdline"
    )
    info = mkt.json("info", "tiny")
    stopped = mkt.ok("stop", "tiny", "--timeout", "8")
    digest = json.loads(
        skopeo("inspect", "--tls-verify=false", f"docker://{hub.host}/tests/tiny:1")
    )["Digest"]
    assert up["template"] == "image"
    assert served == b"second\n"
    assert "uid=101(web) gid=200(extra)" in inside
    assert "GREETING=hello  world \n" in inside
    assert "HOME=/srv\n" in inside
    assert "\n/www/data\n" in inside
    assert "gone.html" not in inside
    assert inside.endswith("/bin/httpd\0-f\0-v\0-p\x008080\0-h\0/www\0")
    assert info["image"] == f"{hub.host}/tests/tiny:1@{digest}"
    assert stopped == ""


def test_what_is_here_is_not_fetched_again(mkt: Mkt, hub: Registry) -> None:
    lower = [*SYSTEM, file(b"big", os.urandom(200_000))]
    for tag, body in (("1", b"one"), ("2", b"two")):
        _publish(hub, f"tests/shared:{tag}", Layout(layers=(lower, [file(b"small", body)])))
    mkt.ok("pull", f"{hub.host}/tests/shared:1", "--network", "none", "--no-sync")
    before = len(hub.requests())

    mkt.ok("pull", f"{hub.host}/tests/shared:2", "newer", "--network", "none", "--no-sync")

    asked = hub.requests()[before:]
    one, two = (mkt.json("info", name)["layers"] for name in ("shared", "newer"))
    assert (
        len([line for line in asked if line.startswith("GET") and "/blobs/" in line]) == 2
    )  # config, layer
    assert one[0] == two[0]
    assert one[1] != two[1]


def _publish(hub: Registry, name: str, layout: Layout) -> str:
    """Put an image into the registry; return its digest."""
    folder = layout.write(hub.folder / name.replace("/", "_").replace(":", "_"))
    skopeo("copy", "--dest-tls-verify=false", f"oci:{folder}", f"docker://{hub.host}/{name}")
    return sha256(layout.documents()[0][layout.documents()[1]["digest"]])


def test_a_digest_names_one_image_whatever_the_tag_means_by_now(mkt: Mkt, hub: Registry) -> None:
    first = _publish(hub, "tests/moving:1", Layout(config={"Entrypoint": ["/bin/first"]}))
    _publish(hub, "tests/moving:1", Layout(config={"Entrypoint": ["/bin/second"]}))

    mkt.ok("pull", f"{hub.host}/tests/moving:1@{first}", "--network", "none", "--no-sync")

    assert "lxc.init.cmd = /bin/first" in (mkt.path / "moving/config").read_text()


def test_what_a_registry_does_not_have_is_an_error_of_the_network(mkt: Mkt, hub: Registry) -> None:
    done = mkt("pull", f"{hub.host}/tests/nothing:1")

    assert done.returncode == 4
    assert (
        f"error[E_NET_HTTP]: {hub.host}/tests/nothing:1: its registry has no such image"
        in done.stderr
    )


def test_a_registry_that_changes_a_blob_is_found_out(mkt: Mkt, hub: Registry) -> None:
    layout = Layout(layers=(SYSTEM, [file(b"x", os.urandom(5000))]))
    _publish(hub, "tests/changed:1", layout)
    layer = json.loads(layout.documents()[0][layout.documents()[1]["digest"]])["layers"][-1][
        "digest"
    ]
    stored = hub.folder / f"data/docker/registry/v2/blobs/sha256/{layer[7:9]}/{layer[7:]}/data"
    body = bytearray(stored.read_bytes())
    body[100] ^= 1
    stored.write_bytes(body)

    done = mkt("pull", f"{hub.host}/tests/changed:1", "--no-sync")

    assert done.returncode == 3
    assert "error[E_TRUST_HASH]" in done.stderr
    assert "changed" not in mkt.names()


@pytest.mark.parametrize("kind", ["a password", "a token"])
def test_a_registry_that_asks_for_a_login_gets_that_of_dockers_file(
    cold: Mkt, tmp_path: Path, kind: str, needs: Callable[..., None]
) -> None:
    needs("docker-registry", "skopeo", "htpasswd", "openssl")
    home = Path(cold.environment["HOME"])
    folder = tmp_path / "registry"
    with (
        tokens(folder) as beside,
        registry(folder, basic(folder) if kind == "a password" else beside) as hub,
    ):
        layout = Layout().write(tmp_path / "layout")
        creds = f"--dest-creds=mkt:{PASSWORD}"
        skopeo(
            "copy",
            "--dest-tls-verify=false",
            creds,
            f"oci:{layout}",
            f"docker://{hub.host}/tests/locked:1",
        )

        refused = cold("pull", f"{hub.host}/tests/locked:1")
        login(home, hub.host)
        cold.ok("pull", f"{hub.host}/tests/locked:1", "--network", "none", "--no-sync")
        cold.ok("push", "locked", f"{hub.host}/tests/locked:2")
        cold.ok("pull", f"{hub.host}/tests/locked:2", "again", "--network", "none", "--no-sync")

    assert refused.returncode == 4
    assert "asks for a login" in refused.stderr
    assert cold.names() == ["again", "locked"]


@pytest.fixture
def sshd(mkt: Mkt) -> str:
    mkt.ok("create", "sshd", "sshd", "--distro", "debian", "--network", "none")
    return "sshd"


def _sent(hub: Registry, since: int) -> list[str]:
    """Return the repositories' paths of the blobs that were sent."""
    return [
        line for line in hub.requests()[since:] if line.startswith("PUT") and "/uploads/" in line
    ]


def test_a_push_has_the_digests_that_skopeo_computes(
    mkt: Mkt, hub: Registry, sshd: str, tmp_path: Path
) -> None:
    mkt.ok("export", sshd, "-o", f"{tmp_path}/image.tar", "--format", "oci")
    name = f"{hub.host}/tests/pushed"
    copied = f"docker://{name}:skopeo"
    skopeo("copy", "--dest-tls-verify=false", f"oci-archive:{tmp_path}/image.tar", copied)
    skopeo("copy", f"oci-archive:{tmp_path}/image.tar", f"dir:{tmp_path}/dir")

    pushed = mkt.json("push", sshd, f"{name}:ours")

    ours, theirs = (
        json.loads(skopeo("inspect", "--tls-verify=false", f"docker://{name}:{tag}"))
        for tag in ("ours", "skopeo")
    )
    assert pushed["digest"] == ours["Digest"] == theirs["Digest"]
    assert pushed["digest"] == skopeo("manifest-digest", tmp_path / "dir/manifest.json").strip()
    assert ours["Layers"] == theirs["Layers"]
    # of all blobs only those of the bill of materials and the lock were not there
    assert pushed["sent"] < 1 << 20 < pushed["known"]


def test_the_second_push_of_a_changed_template_sends_only_the_changed_layer(
    mkt: Mkt, hub: Registry, sshd: str
) -> None:
    name = f"{hub.host}/tests/changes"
    mkt.ok("push", sshd, f"{name}:1")
    mkt.ok(
        "create", "sshd", "other", "--distro", "debian", "--network", "none", "--set", "port=2222"
    )
    before = len(hub.requests())

    pushed = mkt.json("push", "other", f"{name}:2")

    first, second = (
        json.loads(skopeo("inspect", "--tls-verify=false", f"docker://{name}:{tag}"))["Layers"]
        for tag in ("1", "2")
    )
    assert first[:-1] == second[:-1]
    assert first[-1] != second[-1]
    # the tree, the image's config, and the bill of materials, which names the container
    assert len(_sent(hub, before)) <= 3
    assert pushed["sent"] < 1 << 20 < pushed["known"]


def test_the_bill_of_materials_and_the_lock_refer_to_the_image(
    mkt: Mkt, hub: Registry, sshd: str, tmp_path: Path
) -> None:
    repository = "tests/referred"

    pushed = mkt.json("push", sshd, f"{hub.host}/{repository}:1")
    mkt.ok("push", sshd, f"{hub.host}/{repository}:again")
    mkt.ok("export", sshd, "-o", f"{tmp_path}/layout/", "--format", "oci")

    # a registry without the API of referrers has them under a tag (distribution-spec 1.1)
    listed = hub.get(f"{repository}/manifests/{pushed['digest'].replace(':', '-')}", INDEX)
    on_disk = json.loads((tmp_path / "layout/index.json").read_text())["manifests"][1:]
    assert listed["manifests"] == on_disk
    bodies = {}
    for each in listed["manifests"]:
        manifest = hub.get(f"{repository}/manifests/{each['digest']}", MANIFEST)
        assert manifest["subject"]["digest"] == pushed["digest"]
        assert manifest["artifactType"] == each["artifactType"]
        url = f"http://{hub.host}/v2/{repository}/blobs/{manifest['layers'][0]['digest']}"
        with urllib.request.urlopen(url, timeout=10) as answer:
            bodies[each["artifactType"]] = answer.read().decode()
    assert bodies["application/spdx+json"] == mkt.ok("sbom", sshd)
    assert bodies["application/vnd.mktemplate.lock.v1"] == mkt.ok("lock", sshd)


def test_what_was_pushed_is_pulled_and_answers(mkt: Mkt, hub: Registry, sshd: str) -> None:
    name = f"{hub.host}/tests/round"
    pushed = mkt.json("push", sshd, f"{name}:1")

    mkt.ok("pull", f"{name}:1", "back", "--publish", "18124:22", "--no-sync")
    up = mkt.json("up", "back")

    with socket.create_connection(("127.0.0.1", 18124), timeout=10) as client:
        assert client.recv(8) == b"SSH-2.0-"
    assert up["ready"]
    assert mkt.json("info", "back")["image"] == f"{name}:1@{pushed['digest']}"


def test_a_push_names_a_tag_and_never_a_digest(mkt: Mkt, sshd: str) -> None:
    done = mkt("push", sshd, f"127.0.0.1:5000/x@sha256:{'0' * 64}")

    assert done.returncode == 2
    assert "error[E_USAGE]" in done.stderr
