"""A signed text is accepted or refused for the same reasons by each verifier (security.md 3.7)."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from provisioner import trust
from provisioner.deb.trust import split
from provisioner.errors import UntrustedIndex
from provisioner.keys import Keyring, read
from provisioner.openpgp import certificates
from provisioner.trust import question, verify, verify_detached
from provisioner.verifier import Gpgv, Sequoia, Sqv, Verifier
from tests.archive import Key, new_key

NOW = time.time() + 3600  # later than any signature that is made here
TEXT = b"Origin: Test\nSuite: stable\nCodename: trixie\n- a dash \nDescription: caf\xc3\xa9 \t\nSHA256:\n 00 1 a\n"
TRIMMED = b"\n".join(line.rstrip(b" \t") for line in TEXT.split(b"\n")).rstrip(b"\n")
TOOLS: dict[str, Verifier] = {"pysequoia": Sequoia(), "sqv": Sqv(), "gpgv": Gpgv()}
LONG_AGO = "20200101T000000!"


@dataclass(frozen=True)
class Signers:
    """One gpg home with keys of each kind."""

    key: Key
    second: str
    third: str
    expired: str
    revoked: str
    short: str  # RSA of 1024 bits
    damaged: Path  # a keyring with `key` and an earlier state of `revoked`

    def sign(self, *who: str, text: bytes = TEXT, options: tuple[str, ...] = ()) -> bytes:
        users = [word for each in who for word in ("-u", each)]
        return self.key.gpg("--digest-algo", "SHA256", *options, *users, "--clearsign", stdin=text)

    def keyring(self, *who: str) -> Keyring:
        return Keyring(name="test", certificates=certificates(self.key.gpg("--export", *who)))


def _made(key: Key, name: str, kind: str, *options: str, expire: str = "never") -> str:
    key.gpg(
        *options, "--passphrase", "", "--quick-gen-key", f"{name} <{name}@example.org>", kind, "sign", expire
    )  # fmt: skip
    rows = key.gpg("--with-colons", *options, "--list-keys", f"{name}@example.org").decode()
    return next(row.split(":")[9] for row in rows.split("\n") if row.startswith("fpr:"))


@pytest.fixture(scope="session")
def signers(needs: Callable[..., None]) -> Iterator[Signers]:
    needs("gpg", "gpgconf")
    with new_key() as key:
        second, third = _made(key, "second", "ed25519"), _made(key, "third", "nistp256")
        short = _made(key, "short", "rsa1024")
        expired = _made(
            key, "expired", "ed25519", "--faked-system-time", LONG_AGO, expire="20210101T000000"
        )
        revoked = _made(key, "revoked", "ed25519")
        before = key.home / "before.pgp"
        before.write_bytes(key.gpg("--export", key.fingerprint, revoked))
        yield Signers(key, second, third, expired, revoked, short, before)


@pytest.fixture(params=list(TOOLS))
def tool(request: pytest.FixtureRequest, needs: Callable[..., None]) -> Verifier:
    if request.param != "pysequoia":
        needs(request.param)
    return TOOLS[request.param]


def _code(refused: pytest.ExceptionInfo[UntrustedIndex]) -> str:
    return refused.value.code


def test_a_good_message_is_accepted(signers: Signers, tool: Verifier) -> None:
    ring = signers.keyring(signers.key.fingerprint)

    verified = verify(signers.sign(signers.key.fingerprint), ring, "InRelease", NOW, tool)

    assert verified.text == TRIMMED
    assert verified.signers == (signers.key.fingerprint,)


def test_one_known_signer_of_three_is_enough(signers: Signers, tool: Verifier) -> None:
    message = signers.sign(signers.second, signers.key.fingerprint, signers.third)

    verified = verify(message, signers.keyring(signers.third), "InRelease", NOW, tool)

    assert verified.signers == (signers.third,)


def test_all_known_signers_are_named(signers: Signers, tool: Verifier) -> None:
    message = signers.sign(signers.second, signers.third)
    ring = signers.keyring(signers.second, signers.third)

    assert verify(message, ring, "InRelease", NOW, tool).signers == tuple(
        sorted((signers.second, signers.third))
    )


def test_where_two_must_sign_one_is_not_enough(signers: Signers, tool: Verifier) -> None:
    ring = replace(signers.keyring(signers.second, signers.third), minimum=2)
    both = signers.sign(signers.second, signers.third)

    with pytest.raises(UntrustedIndex, match="1 of the 2") as refused:
        verify(signers.sign(signers.second), ring, "InRelease", NOW, tool)

    assert _code(refused) == "E_TRUST_NOKEY"
    assert len(verify(both, ring, "InRelease", NOW, tool).signers) == 2


def test_an_unknown_signer_is_refused_and_named(signers: Signers, tool: Verifier) -> None:
    message = signers.sign(signers.second)

    with pytest.raises(UntrustedIndex, match=signers.second[-16:]) as refused:
        verify(message, signers.keyring(signers.third), "InRelease", NOW, tool)

    assert _code(refused) == "E_TRUST_NOKEY"
    assert "keyring test" in refused.value.detail


def test_a_verdict_holds_until_the_first_key_expires(signers: Signers) -> None:
    ring = signers.keyring(signers.expired, signers.second)
    then = ("--faked-system-time", "20200601T000000!")
    before = time.mktime((2020, 7, 1, 0, 0, 0, 0, 0, 0))

    of_both = verify(signers.sign(signers.expired, options=then), ring, "InRelease", before).until
    of_one = verify(signers.sign(signers.second), ring, "InRelease", NOW).until

    certificate, _ = ring.find(signers.expired) or pytest.fail("no such key")
    assert of_both == certificate.primary.end
    assert before < of_both < NOW
    assert of_one == 0


def test_a_verdict_holds_until_a_signature_of_tomorrow_counts(signers: Signers) -> None:
    ring = signers.keyring(signers.second, signers.third)
    message = signers.sign(signers.second, signers.third)
    _, made = trust._packets(split(message, "").signatures, "")
    tomorrow = replace(made[1], created=int(NOW) + 86400)

    _, counted, until = trust._judge((made[0], tomorrow), ring, "InRelease", NOW)

    assert list(counted.values()) == [1]
    assert until == tomorrow.created - 10


def test_other_bytes_or_other_keys_are_another_question(signers: Signers) -> None:
    message = signers.sign(signers.second)
    ring, more = signers.keyring(signers.second), signers.keyring(signers.second, signers.third)

    asked = (
        (message, ring, "amd64"),
        (message + b"\n", ring, "amd64"),
        (message, more, "amd64"),
        (message, ring, "arm64"),
    )
    questions = {question(*each) for each in asked}

    assert len(questions) == 4
    assert question(*asked[0]) in questions


def _replaced(old: bytes, new: bytes) -> Callable[[bytes], bytes]:
    return lambda message: message.replace(old, new, 1)


STRUCTURE = {
    "a line before the message": lambda m: b"hello\n" + m,
    "an empty line before it": lambda m: b"\n" + m,
    "a line after it": lambda m: m + b"hello\n",
    "an empty line after it": lambda m: m + b"\n\n",
    "the message twice": lambda m: m + m,
    "cut in the signature": lambda m: m[: m.index(b"-----END PGP SIG")],
    "cut in the text": lambda m: m[:120],
    "CR before LF": lambda m: m.replace(b"\n", b"\r\n"),
    "a CR in the text": _replaced(b"Suite: ", b"Suite:\r "),
    "a NUL": _replaced(b"Suite: ", b"Suite:\0 "),
    "another armor header": _replaced(b"Hash: SHA256\n", b"Hash: SHA256\nComment: x\n"),
    "an unknown hash": _replaced(b"Hash: SHA256\n", b"Hash: SHA257\n"),
    "a blank in the blank line": _replaced(b"SHA256\n\n", b"SHA256\n \n"),
    "no hash": _replaced(b"Hash: SHA256\n", b""),
    "the hash of another signature": _replaced(b"Hash: SHA256\n", b"Hash: SHA512\n"),
    "an unescaped dash": _replaced(b"- - a dash", b"-- a dash"),
    "a line of 65 KiB": _replaced(b"Suite: ", b"x" * (65 << 10) + b"\nSuite: "),
    "a second signed part": lambda m: m + b"-----BEGIN PGP SIGNED MESSAGE-----\n" + m,
    "a public key after it": lambda m: (
        m + b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nAA==\n-----END PGP PUBLIC KEY BLOCK-----\n"
    ),
}


@pytest.mark.parametrize("change", STRUCTURE.values(), ids=list(STRUCTURE))
def test_whatever_stands_outside_the_signed_part_is_refused(
    signers: Signers, tool: Verifier, change: Callable[[bytes], bytes]
) -> None:
    message = signers.sign(signers.key.fingerprint)
    assert change(message) != message

    with pytest.raises(UntrustedIndex) as refused:
        verify(change(message), signers.keyring(signers.key.fingerprint), "InRelease", NOW, tool)

    assert _code(refused) == "E_TRUST_FORMAT"


@pytest.mark.parametrize("body", [b"", b"<html>log in</html>\n", b"\x1f\x8b\x08\0"], ids=repr)
def test_what_is_no_signed_message_is_called_a_captive_portal(
    signers: Signers, tool: Verifier, body: bytes
) -> None:
    with pytest.raises(UntrustedIndex) as refused:
        verify(body, signers.keyring(signers.key.fingerprint), "http://h/InRelease", NOW, tool)

    assert _code(refused) == "E_MIRROR_CAPTIVE"
    assert "\x1f" not in refused.value.detail


def test_a_changed_text_is_refused(signers: Signers, tool: Verifier) -> None:
    message = signers.sign(signers.key.fingerprint).replace(b"trixie", b"trixia")

    with pytest.raises(UntrustedIndex) as refused:
        verify(message, signers.keyring(signers.key.fingerprint), "InRelease", NOW, tool)

    assert _code(refused) == "E_TRUST_BADSIG"


def test_one_bad_signature_of_a_known_key_spoils_a_good_one(
    signers: Signers, tool: Verifier
) -> None:
    good = signers.sign(signers.key.fingerprint)
    other = signers.sign(signers.second, text=b"another text\n")
    both = good + other[other.index(b"-----BEGIN PGP SIGNATURE") :]

    with pytest.raises(UntrustedIndex) as refused:
        verify(
            both, signers.keyring(signers.key.fingerprint, signers.second), "InRelease", NOW, tool
        )

    assert _code(refused) == "E_TRUST_BADSIG"


def test_a_second_hash_header_is_accepted(signers: Signers, tool: Verifier) -> None:
    message = signers.sign(signers.key.fingerprint)
    changed = message.replace(b"Hash: SHA256\n", b"Hash: SHA512\nHash: SHA384, SHA256\n")

    verified = verify(changed, signers.keyring(signers.key.fingerprint), "InRelease", NOW, tool)

    assert verified.text == TRIMMED


def test_two_signature_blocks_are_accepted(signers: Signers, tool: Verifier) -> None:
    first, second = signers.sign(signers.key.fingerprint), signers.sign(signers.second)
    both = first + second[second.index(b"-----BEGIN PGP SIGNATURE") :]

    verified = verify(
        both, signers.keyring(signers.key.fingerprint, signers.second), "InRelease", NOW, tool
    )

    assert len(verified.signers) == 2


def test_a_sha1_signature_is_too_weak(signers: Signers, tool: Verifier) -> None:
    message = signers.sign(signers.key.fingerprint, options=("--digest-algo", "SHA1"))
    assert b"Hash: SHA1" in message

    with pytest.raises(UntrustedIndex) as refused:
        verify(message, signers.keyring(signers.key.fingerprint), "InRelease", NOW, tool)

    assert _code(refused) == "E_TRUST_WEAK"


def test_a_key_of_1024_bits_is_too_weak(signers: Signers, tool: Verifier) -> None:
    with pytest.raises(UntrustedIndex) as refused:
        verify(signers.sign(signers.short), signers.keyring(signers.short), "InRelease", NOW, tool)

    assert _code(refused) == "E_TRUST_WEAK"


def test_a_signature_made_before_its_key_expired_is_refused_afterwards(
    signers: Signers, tool: Verifier
) -> None:
    message = signers.sign(signers.expired, options=("--faked-system-time", "20200601T000000!"))

    with pytest.raises(UntrustedIndex) as refused:
        verify(message, signers.keyring(signers.expired), "InRelease", NOW, tool)

    assert _code(refused) == "E_TRUST_EXPKEY"


def test_a_revoked_key_is_refused(signers: Signers, tool: Verifier, tmp_path: Path) -> None:
    message = signers.sign(signers.revoked)
    text = (signers.key.home / f"openpgp-revocs.d/{signers.revoked}.rev").read_text()
    home = tmp_path / "h"
    home.mkdir(mode=0o700)
    elsewhere = Key(home, signers.revoked, home / "ring.pgp")
    elsewhere.gpg("--import", signers.damaged)
    elsewhere.gpg("--import", stdin=text[text.index(":-----") + 1 :].encode())
    ring = Keyring(
        name="test", certificates=certificates(elsewhere.gpg("--export", signers.revoked))
    )

    with pytest.raises(UntrustedIndex) as refused:
        verify(message, ring, "InRelease", NOW, tool)

    assert _code(refused) == "E_TRUST_REVKEY"


def test_a_signature_from_the_future_is_refused(signers: Signers, tool: Verifier) -> None:
    message = signers.sign(signers.key.fingerprint)

    with pytest.raises(UntrustedIndex) as refused:
        verify(message, signers.keyring(signers.key.fingerprint), "InRelease", NOW - 9999, tool)

    assert _code(refused) == "E_TRUST_FUTURE"


def test_a_detached_signature_is_accepted(signers: Signers, tool: Verifier) -> None:
    pair = (TEXT, signers.key.detach(TEXT))

    verified = verify_detached(pair, signers.keyring(signers.key.fingerprint), "Release", NOW, tool)

    assert verified.text == TRIMMED


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda text, sig: (text.replace(b"trixie", b"trixia"), sig), "E_TRUST_BADSIG"),
        (lambda text, sig: (text + b"x", sig), "E_TRUST_BADSIG"),
        (lambda text, sig: (text, sig[:60]), "E_TRUST_FORMAT"),
        (lambda text, sig: (text, b"<html>"), "E_TRUST_FORMAT"),
        (lambda text, sig: (text, b""), "E_TRUST_UNSIGNED"),
        (lambda text, sig: (text, sig + b"x"), "E_TRUST_FORMAT"),
    ],
)
def test_a_detached_signature_covers_every_byte(
    signers: Signers,
    tool: Verifier,
    change: Callable[[bytes, bytes], tuple[bytes, bytes]],
    code: str,
) -> None:
    pair = change(TEXT, signers.key.detach(TEXT))

    with pytest.raises(UntrustedIndex) as refused:
        verify_detached(pair, signers.keyring(signers.key.fingerprint), "Release", NOW, tool)

    assert _code(refused) == code


def test_a_flip_of_any_byte_of_the_signed_part_is_refused(signers: Signers) -> None:
    message = signers.sign(signers.key.fingerprint)
    ring = signers.keyring(signers.key.fingerprint)
    end = message.index(b"-----BEGIN PGP SIGNATURE")
    unsigned = {
        m.start() + i for m in re.finditer(rb"[ \t]+\n", message) for i in range(len(m[0]) - 1)
    }
    accepted = []

    for position in set(range(end)) - unsigned:  # blanks at the end of a line are not signed
        for mask in (0x01, 0x20, 0x80):
            changed = bytearray(message)
            changed[position] ^= mask
            try:
                verify(bytes(changed), ring, "InRelease", NOW)
            except UntrustedIndex:
                continue
            accepted.append((position, mask))

    assert accepted == []


def test_a_flip_of_any_byte_of_the_signature_changes_nothing_that_is_read(signers: Signers) -> None:
    message = signers.sign(signers.key.fingerprint)
    ring = signers.keyring(signers.key.fingerprint)
    texts = set()

    for position in range(message.index(b"-----BEGIN PGP SIGNATURE"), len(message)):
        changed = bytearray(message)
        changed[position] ^= 0x01
        try:
            texts.add(verify(bytes(changed), ring, "InRelease", NOW).text)
        except UntrustedIndex:
            continue

    assert texts <= {TRIMMED}


@pytest.mark.parametrize(
    ("body", "mode", "code"),
    [
        (b"", 0o644, "E_TRUST_KEYRING"),
        (b"<html>not a key</html>", 0o644, "E_TRUST_KEYRING"),
        (b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n\n!!\n", 0o644, "E_TRUST_KEYRING"),
        (b"\x99\xff\xff\x04", 0o644, "E_TRUST_KEYRING"),
        (None, 0o666, "E_TRUST_KEYRING"),
    ],
    ids=["empty", "html", "bad armor", "cut off", "writable by others"],
)
def test_what_is_no_safe_keyring_is_refused(
    signers: Signers, tmp_path: Path, body: bytes | None, mode: int, code: str
) -> None:
    file = tmp_path / "ring.pgp"
    shutil.copy(signers.key.keyring, file)
    if body is not None:
        file.write_bytes(body)
    file.chmod(mode)

    with pytest.raises(UntrustedIndex) as refused:
        read(file)

    assert _code(refused) == code


def test_a_missing_keyring_is_named(tmp_path: Path) -> None:
    with pytest.raises(UntrustedIndex, match=r"none\.pgp") as refused:
        read(tmp_path / "none.pgp")

    assert _code(refused) == "E_TRUST_NOKEYRING"


@pytest.mark.parametrize("armored", [False, True], ids=["binary", "armored"])
def test_a_keyring_is_read_as_gpg_writes_it(
    signers: Signers, tmp_path: Path, armored: bool
) -> None:
    file = tmp_path / "ring"
    options = ["--armor"] if armored else []
    file.write_bytes(signers.key.gpg(*options, "--export", signers.second, signers.third))
    file.chmod(0o644)  # whatever the umask is

    found = {each.fingerprint for each in read(file)}

    assert found == {signers.second, signers.third}
