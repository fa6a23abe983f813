"""Signed checkpoints, against the vectors of the format's first implementation."""

from __future__ import annotations

import base64

import pytest

from authz.audit.notes import Checkpoint, NoteSigner, NoteVerifier
from authz.domain.errors import InvalidArgumentError

SECRET = "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz"
PUBLIC = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
NOTE = """If you think cryptography is the answer to your problem,
then you don't know what your problem is.

\u2014 PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUg\
YN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=
"""
"""Source: https://pkg.go.dev/golang.org/x/mod/sumdb/note."""
CHECKPOINT = Checkpoint("PeterNeumann", 12, bytes(range(32)))


def test_keys_are_those_of_other_implementations() -> None:
    signer = NoteSigner.parse(SECRET, field="key")
    assert (signer.public_key(), signer.secret_key()) == (PUBLIC, SECRET)


def test_a_note_that_another_implementation_signed_is_verified_and_is_no_checkpoint() -> None:
    with pytest.raises(InvalidArgumentError, match="is no checkpoint of `PeterNeumann`"):
        NoteVerifier(PUBLIC).open(NOTE, field="note")


def test_a_checkpoint_is_three_lines_and_a_signature() -> None:
    note = NoteSigner.parse(SECRET, field="key").sign(CHECKPOINT)
    origin, size, root, empty, signature = note.splitlines()
    assert (origin, size, base64.b64decode(root), empty) == ("PeterNeumann", "12", bytes(range(32)), "")
    assert signature.startswith("\u2014 PeterNeumann x08g")
    assert NoteVerifier(PUBLIC).open(note, field="note") == CHECKPOINT


def test_a_checkpoint_with_signatures_of_witnesses_is_verified() -> None:
    note = NoteSigner.parse(SECRET, field="key").sign(CHECKPOINT)
    head, _, own = note.partition("\n\n")
    witness = NoteSigner.generate("witness").sign(CHECKPOINT).partition("\n\n")[2]
    assert NoteVerifier(PUBLIC).open(f"{head}\n\n{witness}{own}", field="note") == CHECKPOINT


def test_decisions_are_a_line_of_the_checkpoint() -> None:
    checkpoint = Checkpoint("PeterNeumann", 12, bytes(range(32)), 3, bytes(range(1, 33)))
    note = NoteSigner.parse(SECRET, field="key").sign(checkpoint)
    assert note.splitlines()[3] == f"decisions 3 {base64.b64encode(checkpoint.decisions_root).decode()}"
    assert NoteVerifier(PUBLIC).open(note, field="note") == checkpoint


@pytest.mark.parametrize("between", ["", "\n", "\n\n"])
def test_a_file_may_have_several_checkpoints(between: str) -> None:
    signer = NoteSigner.parse(SECRET, field="key")
    later = Checkpoint("PeterNeumann", 13, bytes(32), 1, bytes(32))
    notes = between.join(signer.sign(each) for each in (CHECKPOINT, later, CHECKPOINT))
    verifier = NoteVerifier(PUBLIC)
    assert verifier.open_all(notes + between, field="note") == [CHECKPOINT, later, CHECKPOINT]
    assert verifier.open_all(signer.sign(later), field="note") == [later]
    for forged in (notes.replace("\n13\n", "\n14\n"), f"text\n{notes}", f"{notes}text\n", notes[:-30]):
        with pytest.raises(InvalidArgumentError):
            verifier.open_all(forged, field="note")


SIGNED = NoteSigner.parse(SECRET, field="key").sign(CHECKPOINT)
REFUSED = {
    "another size": (SIGNED.replace("\n12\n", "\n13\n"), "is not signed"),
    "another key of the same name": (NoteSigner.generate("PeterNeumann").sign(CHECKPOINT), "is not signed"),
    "no signature": (SIGNED.partition("\n\n")[0], "is not signed"),
    "a signature that is cut": (SIGNED[:-20], "is not signed"),
    "another log": (
        NoteSigner.parse(SECRET, field="key").sign(Checkpoint("other", 1, bytes(32))),
        "is no checkpoint",
    ),
    "nothing": ("", "is not signed"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_as_it_was_signed_is_refused(name: str) -> None:
    note, told = REFUSED[name]
    with pytest.raises(InvalidArgumentError, match=told):
        NoteVerifier(PUBLIC).open(note, field="note")


@pytest.mark.parametrize("text", ["", "PeterNeumann", PUBLIC[:-4], PUBLIC.replace("c74f20a3", "00000000")])
def test_what_is_no_public_key_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgumentError, match="give the whole line that `authz audit keygen` printed"):
        NoteVerifier(text)


@pytest.mark.parametrize("text", ["", PUBLIC, SECRET[:-4]])
def test_what_is_no_secret_key_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgumentError, match="authz audit keygen"):
        NoteSigner.parse(text, field="key")


def test_a_name_with_a_space_is_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="name a key like"):
        NoteSigner.generate("my log")
