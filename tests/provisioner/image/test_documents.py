"""What images say of themselves, as values; and what no image may say."""

from __future__ import annotations

import pytest

from provisioner.errors import ProvisionError
from provisioner.image import config, manifest
from provisioner.image.manifest import Index, Manifest, Platform
from tests.image import OCI, dump, sha256

HEX = sha256(b"x")
LINUX = Platform(os="linux", architecture="amd64")
DOCKER = "application/vnd.docker.distribution"


def row(**more: object) -> dict[str, object]:
    return {"mediaType": f"{OCI}.layer.v1.tar+gzip", "digest": HEX, "size": 1, **more}


def image(**more: object) -> dict[str, object]:
    base = {"mediaType": f"{OCI}.config.v1+json", "digest": HEX, "size": 1}
    return {"schemaVersion": 2, "config": base, "layers": [row()], **more}


def test_a_manifest_names_its_config_and_its_layers() -> None:
    found = manifest.parse(dump(image()), "toy")

    assert isinstance(found, Manifest)
    assert found.digest == sha256(dump(image()))
    assert [each.digest for each in (found.config, *found.layers)] == [HEX, HEX]


@pytest.mark.parametrize(
    ("value", "told", "code"),
    [
        (image(manifests=[]), "", "E_IMAGE_FORMAT"),
        (image(schemaVersion=1), "", "E_IMAGE_FORMAT"),
        (image(mediaType="text/html"), "", "E_IMAGE_FORMAT"),
        (image(mediaType=f"{OCI}.index.v1+json"), "", "E_IMAGE_FORMAT"),
        (image(mediaType=f"{OCI}.manifest.v1+json"), f"{DOCKER}.manifest.v2+json", "E_TRUST_MISMATCH"),
        (image(), f"{OCI}.index.v1+json", "E_IMAGE_FORMAT"),
        (image(layers=[row(digest="sha256:../../x")]), "", "E_TRUST_FIELD"),
        (image(layers=[row(digest=HEX.upper())]), "", "E_TRUST_FIELD"),
        (image(layers=[row(digest="sha512:" + "0" * 128)]), "", "E_TRUST_FIELD"),
        (image(layers=[row(size=-1)]), "", "E_TRUST_FIELD"),
        (image(layers=[row(size=1 << 60)]), "", "E_TRUST_FIELD"),
        (image(layers=[row(size=True)]), "", "E_TRUST_FIELD"),
        (image(layers=[row(urls=["http://192.0.2.1/layer"])]), "", "E_TRUST_FIELD"),
        (image(layers=[row(mediaType="application/vnd.helm")]), "", "E_IMAGE_FORMAT"),
        (image(layers=[row()] * 129), "", "E_ARCHIVE_LIMIT"),
        (image(layers={"a": 1}), "", "E_IMAGE_FORMAT"),
        (image(config=row()), "", "E_IMAGE_FORMAT"),
        ({"schemaVersion": 2, "manifests": [row()] * 1001}, "", "E_ARCHIVE_LIMIT"),
        ([], "", "E_IMAGE_FORMAT"),
    ],
)  # fmt: skip
def test_a_manifest_that_none_may_trust_is_refused(value: object, told: str, code: str) -> None:
    with pytest.raises(ProvisionError) as refused:
        manifest.parse(dump(value), "toy", told)

    assert refused.value.code == code


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "E_IMAGE_FORMAT"),
        (b"\xff", "E_IMAGE_FORMAT"),
        (b'{"schemaVersion": NaN}', "E_IMAGE_FORMAT"),
        (b'{"schemaVersion": 2, "layers": [], "layers": []}', "E_IMAGE_FORMAT"),
        (b'{"a":' * 100_000, "E_ARCHIVE_LIMIT"),
        (b" " * (4 << 20) + b"{}", "E_ARCHIVE_LIMIT"),
    ],
    ids=["empty", "no UTF-8", "no number", "a key twice", "too deep", "too large"],
)
def test_a_document_is_plain_json_of_a_bounded_size(body: bytes, code: str) -> None:
    with pytest.raises(ProvisionError) as refused:
        manifest.parse(body, "toy")

    assert refused.value.code == code


def entry(architecture: str, variant: str = "") -> dict[str, object]:
    where = {"os": "linux", "architecture": architecture, "variant": variant}
    return row(digest=sha256(f"{architecture}{variant}".encode()), platform=where)


def test_of_many_platforms_this_machines_is_chosen() -> None:
    body = dump({"schemaVersion": 2, "manifests": [entry("arm64", "v8"), entry("amd64")]})
    index = manifest.parse(body, "toy")
    assert isinstance(index, Index)

    chosen = manifest.choose(index, LINUX, "toy")

    assert chosen.digest == sha256(b"amd64")


def test_an_image_for_other_machines_only_says_for_which() -> None:
    body = dump({"schemaVersion": 2, "manifests": [entry("arm64", "v8"), entry("s390x")]})
    index = manifest.parse(body, "toy")
    assert isinstance(index, Index)

    with pytest.raises(ProvisionError) as refused:
        manifest.choose(index, LINUX, "toy")

    assert refused.value.code == "E_TRUST_ARCH"
    assert refused.value.hints == ("it has: linux/arm64/v8, linux/s390x",)


def test_indexes_in_one_another_have_an_end() -> None:
    body = dump({"schemaVersion": 2, "manifests": [row(mediaType=f"{OCI}.index.v1+json")]})
    first = manifest.descriptor(row(mediaType=f"{OCI}.index.v1+json"), "toy")

    with pytest.raises(ProvisionError, match="E_ARCHIVE_LIMIT"):
        manifest.resolve(first, lambda each: body, LINUX, "toy")


def described(top: dict[str, object] | None = None, **said: object) -> bytes:
    rootfs = {"type": "layers", "diff_ids": [HEX]}
    return dump(
        {"architecture": "amd64", "os": "linux", "rootfs": rootfs, "config": said, **(top or {})}
    )


def test_a_config_says_what_runs_and_how() -> None:
    found = config.parse(
        described(
            Entrypoint=["/bin/a"],
            Cmd=["b", "c d"],
            Env=["A=1", "B=x=y", "A=2"],
            User="web:extra",
            WorkingDir="/srv",
            StopSignal="SIGQUIT",
            ExposedPorts={"80/tcp": {}, "53/udp": {}, "8080": {}},
            Volumes={"/data": {}},
        ),
        "toy",
    )

    assert found.argv == ("/bin/a", "b", "c d")
    assert found.env == (("A", "2"), ("B", "x=y"))
    assert (found.user, found.workdir, found.stop_signal) == ("web:extra", "/srv", "SIGQUIT")
    assert found.ports == ((53, "udp"), (80, "tcp"), (8080, "tcp"))
    assert found.volumes == ("/data",)
    assert found.notes == ()


def test_what_asks_for_the_host_is_not_read_and_named() -> None:
    body = described(
        top={"mktemplate.conf": "x"},
        Labels={"io.containerd.logger": "binary:///bin/sh"},
        HostConfig={"Privileged": True, "Binds": ["/:/host"]},
    )

    found = config.parse(body, "toy")

    notes = ("toy: ignored what an image may not say: HostConfig, mktemplate.conf",)
    assert found == config.ImageConfig(platform=LINUX, diff_ids=(HEX,), notes=notes)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (described(Env=["FOO"]), "E_ENV"),
        (described(Env=["=x"]), "E_ENV"),
        (described(Env=["A\nlxc.hook.start=x"]), "E_ENV"),
        (described(Env="A=1"), "E_IMAGE_FORMAT"),
        (described(Entrypoint="/bin/sh"), "E_IMAGE_FORMAT"),
        (described(Cmd=[1]), "E_IMAGE_FORMAT"),
        (described(Cmd=["x"] * 1001), "E_IMAGE_FORMAT"),
        (described(ExposedPorts={"0/tcp": {}}), "E_IMAGE_FORMAT"),
        (described(ExposedPorts={"70000": {}}), "E_IMAGE_FORMAT"),
        (described(top={"rootfs": {"type": "tree", "diff_ids": []}}), "E_IMAGE_FORMAT"),
        (described(top={"rootfs": {"type": "layers", "diff_ids": ["x"]}}), "E_TRUST_FIELD"),
    ],
)
def test_a_config_that_means_nothing_is_refused(body: bytes, code: str) -> None:
    with pytest.raises(ProvisionError) as refused:
        config.parse(body, "toy")

    assert refused.value.code == code


@pytest.mark.parametrize(
    ("layers", "wanted", "code"),
    [
        (2, LINUX, "E_TRUST_MISMATCH"),
        (1, Platform(os="linux", architecture="arm64"), "E_TRUST_ARCH"),
        (1, Platform(os="windows", architecture="amd64"), "E_TRUST_ARCH"),
    ],
)
def test_a_config_that_is_not_its_manifests_or_of_another_machine_is_refused(
    layers: int, wanted: Platform, code: str
) -> None:
    found = config.parse(described(), "toy")

    with pytest.raises(ProvisionError) as refused:
        config.check(found, layers, wanted, "toy")

    assert refused.value.code == code
