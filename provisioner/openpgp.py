"""OpenPGP packets, as far as a verdict needs them: who signed, with what, and which keys a keyring holds.

Nothing here does cryptography: `provisioner.verifier` does. What is read from a signature here may only ever make a
verdict stricter; what is read from a keyring is as trusted as the keyring. Source: RFC 4880 and RFC 9580.
"""

from __future__ import annotations

import binascii
import hashlib
import re
from collections.abc import Iterator
from functools import cached_property

from valuetypes import dataclass, field

STRONG = frozenset({8, 9, 10})  # hashes that are accepted: SHA-256, SHA-384, SHA-512
SIGNATURE, PUBLIC_KEY, PUBLIC_SUBKEY = 2, 6, 14  # packet types
_ARMOR = re.compile(
    rb"-----BEGIN PGP ([A-Z ]+)-----\n((?:[!-9;-~]+: ?[^\n]*\n)*)[ \t]*\n"
    rb"([A-Za-z0-9+/=\n]+)-----END PGP \1-----[ \t]*(?:\n|\Z)"
)
_RSA, _ECDSA, _EDDSA = 1, 19, 22


def _crc24_row(value: int) -> int:
    value <<= 16
    for _ in range(8):
        value = value << 1 ^ (0x1864CFB if value & 0x800000 else 0)
    return value & 0xFFFFFF


_CRC24 = tuple(map(_crc24_row, range(256)))  # RFC 9580, 6.1.1


class Malformed(ValueError):
    """Bytes that are no OpenPGP data."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """What one signature packet says about itself."""

    issuer: str  # key id or fingerprint of the (sub)key that made it, upper case hex; "" = it does not say
    kind: int  # 0x00 binary, 0x01 text, 0x1f direct key, 0x20 key revocation …
    hash: int
    algorithm: int
    created: int  # seconds since the epoch
    expires: int = 0  # seconds since the epoch; 0 = never
    key_lifetime: int = 0  # seconds, in a self-signature; 0 = for ever


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """One primary key or subkey."""

    fingerprint: str
    created: int
    algorithm: int
    bits: int  # of an RSA modulus, else 0
    lifetime: int = 0  # seconds from `created`; 0 = for ever
    revoked: bool = False
    bound: bool = True  # whether its newest self-signature uses a strong hash

    def strong(self) -> bool:
        """Whether its algorithm and its binding are ones that are accepted (D-5)."""
        return self.bound and self._algorithm_is_strong()

    def _algorithm_is_strong(self) -> bool:
        return self.algorithm in {_ECDSA, _EDDSA} or (self.algorithm == _RSA and self.bits >= 2048)

    @property
    def end(self) -> int:
        """When its validity ends, seconds since the epoch; 0 = never."""
        return self.created + self.lifetime if self.lifetime else 0

    def expired(self, now: float) -> bool:
        """Whether its validity ended before `now`."""
        return 0 < self.end < now


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """A primary key with its subkeys: the bytes that a verifier takes, read further when somebody looks."""

    fingerprint: str  # of the primary key
    data: bytes = field(repr=False)

    @cached_property
    def keys(self) -> tuple[Key, ...]:
        """The primary key, and its subkeys; Malformed where they cannot be read."""
        return _keys(self.fingerprint, self.data)

    @property
    def primary(self) -> Key:
        """The primary key."""
        return self.keys[0]

    def key(self, issuer: str) -> Key | None:
        """Return the key that `issuer`, a key id or fingerprint, means."""
        for key in self.keys:
            if len(issuer) >= 16 and key.fingerprint.endswith(issuer):
                return key
        return None


def dearmor(text: bytes) -> bytes:
    """Return the data of one or several armored blocks (RFC 9580, 6.2), with their checksums checked."""
    position = 0
    parts: list[bytes] = []
    while text[position:].strip():
        match = _ARMOR.match(text, position)
        if match is None:
            raise Malformed("not an armored block")
        parts.append(_decode(match[3]))
        position = match.end()
    return b"".join(parts)


def armor(signatures: bytes) -> bytes:
    """Return signature packets as one armored block."""
    text = binascii.b2a_base64(signatures, newline=False)
    lines = [text[start : start + 64] for start in range(0, len(text), 64)]
    head, tail = b"-----BEGIN PGP SIGNATURE-----\n\n", b"\n-----END PGP SIGNATURE-----\n"
    return head + b"\n".join(lines) + tail


def _decode(body: bytes) -> bytes:
    lines = body.split()
    check = lines.pop() if lines and lines[-1].startswith(b"=") else b""
    try:
        data = binascii.a2b_base64(b"".join(lines), strict_mode=True)
        wanted = binascii.a2b_base64(check[1:], strict_mode=True) if check else b""
    except binascii.Error as problem:
        raise Malformed(str(problem)) from None
    if check and _crc24(data).to_bytes(3, "big") != wanted:
        raise Malformed("the armor's checksum is wrong")
    return data


def _crc24(data: bytes) -> int:
    value = 0xB704CE
    for octet in data:
        value = (value << 8 & 0xFFFFFF) ^ _CRC24[value >> 16 ^ octet]
    return value


def packets(data: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """Yield (type, body, whole packet) for each packet of `data`; lengths must be definite (RFC 9580, 4.2)."""
    position = 0
    while position < len(data):
        start = position
        try:
            kind, body_start, length = _header(data, position)
        except IndexError:
            raise Malformed("a packet is cut off") from None
        position = body_start + length
        if position > len(data):
            raise Malformed("a packet is cut off")
        yield kind, data[body_start:position], data[start:position]


def _header(data: bytes, position: int) -> tuple[int, int, int]:
    tag = data[position]
    if not tag & 0x80:
        raise Malformed("not a packet")
    if tag & 0x40:
        length, width = _length(data, position + 1)
        return tag & 0x3F, position + 1 + width, length
    width = (1, 2, 4, 0)[tag & 3]
    if not width:
        raise Malformed("a packet without a length")
    length = int.from_bytes(data[position + 1 : position + 1 + width], "big")
    return tag >> 2 & 0x0F, position + 1 + width, length


def _length(data: bytes, position: int) -> tuple[int, int]:
    """Return a new-format length and how many octets it takes."""
    first = data[position]
    if first < 192:
        return first, 1
    if first < 224:
        return ((first - 192) << 8) + data[position + 1] + 192, 2
    if first == 255:
        return int.from_bytes(data[position + 1 : position + 5], "big"), 5
    raise Malformed("a packet of partial lengths")


def signature(body: bytes) -> Signature:
    """Read the body of a version 4 signature packet (RFC 9580, 5.2.3)."""
    if len(body) < 10 or body[0] != 4:
        raise Malformed("not a version 4 signature")
    hashed_end = 6 + int.from_bytes(body[4:6], "big")
    loose_end = hashed_end + 2 + int.from_bytes(body[hashed_end : hashed_end + 2], "big")
    if loose_end + 2 > len(body):
        raise Malformed("a signature is cut off")
    fields = dict(_subpackets(body[6:hashed_end]))
    loose = dict(_subpackets(body[hashed_end + 2 : loose_end]))
    issuer = fields.get(33) or loose.get(33)  # version octet and fingerprint
    key_id = fields.get(16) or loose.get(16) or b""
    created = int.from_bytes(fields.get(2, b""), "big")
    expiry = int.from_bytes(fields.get(3, b""), "big")
    return Signature(
        issuer=(issuer[1:] if issuer else key_id).hex().upper(),
        kind=body[1],
        algorithm=body[2],
        hash=body[3],
        created=created,
        expires=created + expiry if expiry else 0,
        key_lifetime=int.from_bytes(fields.get(9, b""), "big"),
    )


def _subpackets(data: bytes) -> Iterator[tuple[int, bytes]]:
    position = 0
    while position < len(data):
        try:
            length, width = _length(data, position)
        except IndexError:
            raise Malformed("a signature is cut off") from None
        start = position + width
        position = start + length
        if not length or position > len(data):
            raise Malformed("a signature is cut off")
        yield data[start] & 0x7F, data[start + 1 : position]


def signatures(data: bytes) -> tuple[Signature, ...]:
    """Return the signatures of `data`, which may hold nothing else; those of an unknown version are left out."""
    found = []
    for kind, body, _ in packets(data):
        if kind != SIGNATURE:
            raise Malformed("something else than a signature")
        if body[:1] in {b"\x03", b"\x06"}:
            continue  # no archive signs so, and a signature that is not counted accepts nothing
        found.append(signature(body))
    return tuple(found)


def certificates(data: bytes) -> tuple[Certificate, ...]:
    """Return the certificates of a keyring, binary or armored."""
    if data[:1] == b"-":
        data = dearmor(data.replace(b"\r\n", b"\n"))
    found: list[tuple[bytes, list[bytes]]] = []  # a primary key, and the packets of its certificate
    for kind, body, packet in packets(data):
        if kind == PUBLIC_KEY:
            found.append((body, [packet]))
        elif not found:
            raise Malformed("it does not begin with a public key")
        else:
            found[-1][1].append(packet)
    return tuple(
        Certificate(fingerprint=_fingerprint(body), data=b"".join(whole))
        for body, whole in found
        if body[:1] == b"\x04"
    )


def _keys(own: str, data: bytes) -> tuple[Key, ...]:
    """Read keys, their lifetimes (the newest self-signature's) and revocations; `own`: the primary's fingerprint."""
    keys: list[tuple[bytes, list[Signature]]] = []
    for kind, body, _ in packets(data):
        if kind in {PUBLIC_KEY, PUBLIC_SUBKEY}:
            keys.append((body, []))
        elif kind == SIGNATURE and body[:1] == b"\x04":
            keys[-1][1].append(signature(body))
    return tuple(
        _key(body, [each for each in made if each.issuer and own.endswith(each.issuer)])
        for body, made in keys
    )


def _fingerprint(body: bytes) -> str:
    data = b"\x99" + len(body).to_bytes(2, "big") + body
    return hashlib.sha1(data, usedforsecurity=False).hexdigest().upper()  # RFC 9580, 5.5.4.2


def _key(body: bytes, own: list[Signature]) -> Key:
    if len(body) < 8:
        raise Malformed("a key is cut off")
    # A direct-key signature tells a lifetime only where no user id does: GnuPG makes one for each revoker.
    bound = [each for each in own if 0x10 <= each.kind <= 0x18]
    direct = [each for each in own if each.kind == 0x1F]
    newest = max(bound or direct, key=lambda each: each.created, default=None)
    return Key(
        fingerprint=_fingerprint(body),
        created=int.from_bytes(body[1:5], "big"),
        algorithm=body[5],
        bits=int.from_bytes(body[6:8], "big") if body[5] == _RSA else 0,
        lifetime=newest.key_lifetime if newest else 0,
        bound=newest is not None and newest.hash in STRONG,
        revoked=any(each.kind in {0x20, 0x28} for each in own),
    )
