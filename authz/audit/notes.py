"""Signed checkpoints of a log: notes that name it, its size and the hash of its tree.

Source: https://c2sp.org/tlog-checkpoint, https://c2sp.org/signed-note
"""

from __future__ import annotations

import base64
import binascii
import re
from hashlib import sha256

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from authz.domain.errors import InvalidArgumentError, malformed
from authz.domain.tree import EMPTY_ROOT

_ED25519 = b"\x01"
_HASH_BYTES, _KEY_BYTES, _ROOT_BYTES = 4, 32, 32
_SECRET = "PRIVATE+KEY+"  # noqa: S105  how a secret key begins
_NAME = re.compile(r"[^\s+\u2014]{1,128}")
_SECRET_KEY = re.compile(r"PRIVATE\+KEY\+([^+\s]+)\+[0-9a-f]{8}\+(\S+)")
_NOTE = re.compile(r"(?:(?!\u2014 )[^\n]+\n)+\n(?:\u2014 [^\n]+\n)+")
_NOTES = re.compile(rf"\n*(?:{_NOTE.pattern}\n*)+")
_DECISIONS = "decisions"
_CHECKPOINT = re.compile(rf"(\S+)\n([0-9]+)\n(\S+)\n(?:{_DECISIONS} ([0-9]+) (\S+)\n)?")
_SIGNATURE = re.compile(r"\u2014 (\S+) (\S+)")


class Checkpoint(msgspec.Struct, frozen=True):
    """The log `origin` had a tree of `size` leaves with a `root`, and the log of its decisions another, if it
    had any."""

    origin: str
    size: int
    root: bytes
    decisions_size: int = 0
    decisions_root: bytes = EMPTY_ROOT

    def text(self) -> str:
        """The text that is signed. The decisions are an extension line."""
        lines = [self.origin, str(self.size), _encoded(self.root)]
        if self.decisions_size:
            lines.append(f"{_DECISIONS} {self.decisions_size} {_encoded(self.decisions_root)}")
        return "".join(f"{line}\n" for line in lines)


class NoteSigner:
    """Signs as a named key."""

    def __init__(self, name: str, secret: bytes) -> None:
        """`secret` has 32 bytes. Raises `InvalidArgumentError` for a name that cannot be that of a key."""
        if not _NAME.fullmatch(name):
            raise malformed("name", f"`{name}` has spaces or a `+`; name a key like `example.org/authz`")
        self._name = name
        self._key = Ed25519PrivateKey.from_private_bytes(secret)
        self._secret = secret

    @classmethod
    def generate(cls, name: str) -> NoteSigner:
        """A signer with a new key."""
        return cls(name, Ed25519PrivateKey.generate().private_bytes_raw())

    @classmethod
    def parse(cls, text: str, *, field: str) -> NoteSigner:
        """The signer of a secret key as text. Raises `InvalidArgumentError`."""
        found = _SECRET_KEY.fullmatch(text.strip())
        secret = b"" if found is None else _decoded(found[2])
        if found is not None and len(secret) == _KEY_BYTES + 1 and secret[:1] == _ED25519:
            return cls(found[1], secret[1:])
        raise malformed(field, "has no secret key; make one with `authz audit keygen`")

    @property
    def name(self) -> str:
        """The name of the key, which is the origin of the checkpoints that it signs."""
        return self._name

    def secret_key(self) -> str:
        """The secret key as text."""
        return f"{_SECRET}{self._name}+{self._hash().hex()}+{_encoded(_ED25519 + self._secret)}"

    def public_key(self) -> str:
        """The public key as text, a `vkey`."""
        return f"{self._name}+{self._hash().hex()}+{_encoded(_ED25519 + self._public())}"

    def sign(self, checkpoint: Checkpoint) -> str:
        """The checkpoint as a signed note."""
        text = checkpoint.text()
        signature = _encoded(self._hash() + self._key.sign(text.encode()))
        return f"{text}\n\u2014 {self._name} {signature}\n"

    def _public(self) -> bytes:
        return self._key.public_key().public_bytes_raw()

    def _hash(self) -> bytes:
        return _key_hash(self._name, self._public())


class NoteVerifier:
    """Verifies the signatures of one key."""

    def __init__(self, public_key: str) -> None:
        """Raises `InvalidArgumentError` for a text that is no `vkey`."""
        name, _, rest = public_key.strip().partition("+")
        hash_text, _, encoded = rest.partition("+")
        key = _decoded(encoded)
        is_ed25519 = len(key) == _KEY_BYTES + 1 and key[:1] == _ED25519
        if not (is_ed25519 and hash_text == _key_hash(name, key[1:]).hex()):
            raise malformed(
                "public key",
                f"`{public_key}` is malformed; give the whole line that `authz audit keygen` printed",
            )
        self._name = name
        self._hash = bytes.fromhex(hash_text)
        self._key = Ed25519PublicKey.from_public_bytes(key[1:])

    def open(self, note: str, *, field: str) -> Checkpoint:
        """The checkpoint of a note that the key has signed. Raises `InvalidArgumentError` for any other."""
        text, _, signatures = note.partition("\n\n")
        text += "\n"
        if not any(self._has_signed(text, line) for line in signatures.splitlines()):
            raise self._unsigned(field)
        found = _CHECKPOINT.match(text)
        roots = [] if found is None else [_decoded(each) for each in found.group(3, 5) if each]
        if found is None or found[1] != self._name or {len(root) for root in roots} != {_ROOT_BYTES}:
            raise malformed(field, f"is no checkpoint of `{self._name}`")
        return Checkpoint(self._name, int(found[2]), roots[0], int(found[4] or 0), (*roots, EMPTY_ROOT)[1])

    def open_all(self, notes: str, *, field: str) -> list[Checkpoint]:
        """The checkpoints of one note, or of several one after the other, each of which the key has signed.
        Raises as `open`."""
        if not _NOTES.fullmatch(notes):
            raise self._unsigned(field)
        return [self.open(each[0], field=field) for each in _NOTE.finditer(notes)]

    def _unsigned(self, field: str) -> InvalidArgumentError:
        return malformed(field, f"is not signed by `{self._name}`, or it was changed since")

    def _has_signed(self, text: str, line: str) -> bool:
        found = _SIGNATURE.fullmatch(line)
        signature = _decoded(found[2]) if found is not None and found[1] == self._name else b""
        if signature[:_HASH_BYTES] != self._hash:
            return False
        try:
            self._key.verify(signature[_HASH_BYTES:], text.encode())
        except InvalidSignature:
            return False
        return True


def _key_hash(name: str, public: bytes) -> bytes:
    return sha256(name.encode() + b"\n" + _ED25519 + public).digest()[:_HASH_BYTES]


def _encoded(content: bytes) -> str:
    return base64.b64encode(content).decode()


def _decoded(text: str) -> bytes:
    """The bytes of base64; empty if it is not well-formed."""
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return b""
