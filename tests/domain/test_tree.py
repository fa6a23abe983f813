"""The Merkle tree, against the vectors of Certificate Transparency and an independent implementation."""

from __future__ import annotations

import pytest
import scitt_cose
from hypothesis import given, settings
from hypothesis import strategies as st

from authz.domain.tree import EMPTY_ROOT, MerkleTree, leaf_hash

LEAVES = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]
ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
"""Source: https://github.com/google/certificate-transparency, cpp/merkletree/merkle_tree_test.cc."""


def roots_of(entries: list[bytes]) -> list[str]:
    """The root after each entry."""
    tree, roots = MerkleTree(), []
    for entry in entries:
        tree.add(leaf_hash(entry))
        roots.append(tree.root().hex())
    return roots


def test_the_roots_are_those_of_certificate_transparency() -> None:
    assert roots_of([bytes.fromhex(leaf) for leaf in LEAVES]) == ROOTS


def test_an_empty_tree_has_the_hash_of_nothing() -> None:
    assert MerkleTree().root() == EMPTY_ROOT
    assert scitt_cose.merkle_root([]) == EMPTY_ROOT.hex()


@settings(max_examples=12, deadline=None)
@given(st.lists(st.binary(max_size=8), min_size=2, max_size=40), st.data())
def test_an_independent_verifier_accepts_each_root_as_one_of_the_same_history(
    entries: list[bytes], data: st.DataObject
) -> None:
    roots, texts = roots_of(entries), [entry.hex() for entry in entries]
    assert roots[-1] == scitt_cose.merkle_root(texts)
    size = data.draw(st.integers(1, len(entries)))
    proof = scitt_cose.consistency_proof(texts, size, len(texts))
    assert scitt_cose.verify_consistency(roots[size - 1], roots[-1], size, len(entries), proof)
    index = data.draw(st.integers(0, len(entries) - 1))
    path = scitt_cose.inclusion_proof(texts, index)
    assert scitt_cose.verify_inclusion(texts[index], index, len(entries), path, roots[-1])


@pytest.mark.parametrize("size", [1, 2, 3, 7, 8])
def test_another_entry_gives_another_root(size: int) -> None:
    entries = [bytes([number]) for number in range(size)]
    changed = [*entries[:-1], b"other"]
    assert roots_of(entries)[-1] != roots_of(changed)[-1]
