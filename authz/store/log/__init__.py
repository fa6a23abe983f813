"""The change log and the decision log, and a Merkle tree over each.

`writer` appends to the change log, `reader` and `audit` read it, `past` replays it, and `compaction` removes
what is old. A leaf has the hash of one revision (`leaves`) or of one batch of decisions (`decision_leaves`)
and is stored in the same transaction. `stored_tree` reads these hashes, of which `proofs` makes proofs;
`verification` computes all of them again.
"""
