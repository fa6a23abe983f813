"""The Merkle tree, against the vectors of Certificate Transparency and an independent implementation."""

from __future__ import annotations

import pytest
import scitt_cose
from hypothesis import given
from hypothesis import strategies as st

from authz.domain.proofs import ConsistencyProof, InclusionProof
from authz.domain.tree import (
    EMPTY_ROOT,
    MerkleTree,
    Range,
    StoredLeaf,
    consistency_ranges,
    inclusion_ranges,
    leaf_hash,
    leaves_for,
    parts_of,
    range_hash,
)
from tests.properties import examples

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


@examples(20)
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


class Stored:
    """A tree as it is stored: with each leaf the largest part that ends with it."""

    def __init__(self, size: int) -> None:
        self.entries = [bytes([number]) for number in range(size)]
        self.texts = [entry.hex() for entry in self.entries]
        tree, hashes = MerkleTree(), [leaf_hash(entry) for entry in self.entries]
        self.leaves = {
            number: StoredLeaf(leaf, tree.add(leaf)) for number, leaf in enumerate(hashes, start=1)
        }

    def hash(self, leaves: Range) -> bytes:
        """From no more than the leaves that are named."""
        return range_hash(leaves, {number: self.leaves[number] for number in leaves_for(leaves)})

    def inclusion(self, number: int, size: int) -> InclusionProof:
        hashes = tuple(map(self.hash, inclusion_ranges(number, size)))
        return InclusionProof(number, size, self.leaves[number].leaf, hashes, self.entries[number - 1])

    def consistency(self, first: int, second: int) -> ConsistencyProof:
        return ConsistencyProof(first, second, tuple(map(self.hash, consistency_ranges(first, second))))


SIZES = [1, 2, 3, 7, 8, 11, 16, 21]
STORED = Stored(max(SIZES))


@pytest.mark.parametrize("size", SIZES)
def test_every_proof_is_the_one_that_an_independent_prover_makes(size: int) -> None:
    texts = STORED.texts[:size]
    assert STORED.hash((0, size)).hex() == scitt_cose.merkle_root(texts)
    for number in range(1, size + 1):
        found = [each.hex() for each in STORED.inclusion(number, size).hashes]
        assert found == scitt_cose.inclusion_proof(texts, number - 1)
        found = [each.hex() for each in STORED.consistency(number, size).hashes]
        assert found == scitt_cose.consistency_proof(texts, number, size)


@pytest.mark.parametrize("size", SIZES)
def test_a_proof_holds_for_the_roots_that_it_is_of_and_for_no_others(size: int) -> None:
    root, other = STORED.hash((0, size)), leaf_hash(b"other")
    for number in range(1, size + 1):
        proof, root_before = STORED.inclusion(number, size), STORED.hash((0, number))
        assert proof.holds_for(root)
        assert not proof.holds_for(other)
        assert not InclusionProof(number, size, other, proof.hashes).holds_for(root)
        assert not InclusionProof(number, size, proof.leaf, proof.hashes, b"other").holds_for(root)
        assert not InclusionProof(number, size, proof.leaf, (*proof.hashes, other)).holds_for(root)
        assert not InclusionProof(size + 1, size, proof.leaf, proof.hashes).holds_for(root)
        grown = STORED.consistency(number, size)
        assert grown.holds_for(root_before, root)
        assert not grown.holds_for(other, root)
        assert not grown.holds_for(root_before, other)
        assert not ConsistencyProof(number, size, (*grown.hashes, other)).holds_for(root_before, root)
        assert not ConsistencyProof(number, size, grown.hashes[:-1]).holds_for(root_before, root) or (
            number == size
        )


def test_a_tree_that_goes_on_from_its_parts_is_the_same() -> None:
    for size in range(len(STORED.entries)):
        parts = [STORED.leaves[part.end].part for part in parts_of((0, size))]
        tree = MerkleTree(size, parts)
        assert tree.add(STORED.leaves[size + 1].leaf) == STORED.leaves[size + 1].part
        assert tree.root() == STORED.hash((0, size + 1))


def test_a_proof_reads_few_of_ten_million_leaves() -> None:
    size = 10_000_000
    for number in (1, 2**23, 7_654_321, size):
        for ranges in (inclusion_ranges(number, size), consistency_ranges(number, size)):
            assert len({each for leaves in ranges for each in leaves_for(leaves)}) < 300
