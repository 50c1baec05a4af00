"""A root binds every leaf at its place: RFC 6962, section 2.1, with the test vectors of Certificate Transparency."""

from hashlib import sha256
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crypto.errors import ProtocolError
from crypto.merkle import MerkleTree, leaf_hash, node_hash, shown_root
from tests.cases import every
from tests.crypto.test_vectors import load

# The leaves and roots of merkle_tree_test.cc in https://github.com/google/certificate-transparency (Apache-2.0).
THEIR_LEAVES = ("", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f")
THEIR_ROOTS = (
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
)


def _leaves(size: int) -> list[bytes]:
    return [leaf_hash(f"leaf {number}".encode()) for number in range(size)]


@pytest.mark.parametrize("size", range(1, 9))
def test_roots_are_those_of_certificate_transparency(size: int) -> None:
    assert (
        MerkleTree([leaf_hash(bytes.fromhex(leaf)) for leaf in THEIR_LEAVES[:size]]).root.hex() == THEIR_ROOTS[size - 1]
    )


@every("case", load("merkle")["cases"])
def test_proofs_are_the_documented_ones(case: dict[str, Any]) -> None:
    tree, leaves = MerkleTree(_leaves(case["size"])), _leaves(case["size"])
    proof = [bytes.fromhex(node) for node in case["proof"]]
    assert tree.root.hex() == case["root"]
    assert list(tree.proof(case["shown"])) == proof
    assert shown_root(case["size"], {place: leaves[place] for place in case["shown"]}, proof) == tree.root


@given(
    st.integers(1, 130).flatmap(lambda size: st.tuples(st.just(size), st.sets(st.integers(0, size - 1), min_size=1)))
)
def test_what_is_shown_leads_to_the_root_and_nothing_else_does(shown: tuple[int, set[int]]) -> None:
    size, places = shown
    leaves, tree = _leaves(size), MerkleTree(_leaves(size))
    seen, proof = {place: leaves[place] for place in places}, tree.proof(places)
    assert shown_root(size, seen, proof) == tree.root
    for place in list(places)[:3]:
        assert shown_root(size, {**seen, place: leaf_hash(b"another")}, proof) != tree.root
    for number in range(min(3, len(proof))):
        with pytest.raises(ProtocolError, match="lacks a hash"):
            shown_root(size, seen, (*proof[:number], proof[number][:-1], *proof[number + 1 :]))
        changed = (*proof[:number], bytes(32), *proof[number + 1 :])
        assert shown_root(size, seen, changed) != tree.root
    with pytest.raises(ProtocolError, match="more hashes than it needs"):
        shown_root(size, seen, (*proof, bytes(32)))
    if proof:
        with pytest.raises(ProtocolError, match="lacks a hash"):
            shown_root(size, seen, proof[:-1])


def test_two_leaves_that_are_swapped_give_another_root() -> None:
    leaves, tree = _leaves(40), MerkleTree(_leaves(40))
    assert shown_root(40, {3: leaves[30], 30: leaves[3]}, tree.proof([3, 30])) != tree.root
    alone = tree.proof([3])
    assert shown_root(40, {2: leaves[3]}, alone) != tree.root
    # The root does not hold the number of leaves: a path may look the same in a tree of another size.
    assert shown_root(39, {3: leaves[3]}, alone) == tree.root
    with pytest.raises(ProtocolError):
        shown_root(65, {3: leaves[3]}, alone)


def test_a_node_does_not_pass_for_a_leaf() -> None:
    # Without the first byte, the concatenation of two leaves would be a leaf of a smaller tree with the same root.
    one, two = _leaves(2)
    root = MerkleTree([one, two]).root
    assert root == node_hash(one, two) != leaf_hash(one + two)
    assert sha256(one + two).digest() not in (root, leaf_hash(one + two))


@pytest.mark.parametrize("places", [(), (-1,), (5,), (0, 7)])
def test_places_outside_the_tree_are_refused(places: tuple[int, ...]) -> None:
    with pytest.raises(ProtocolError, match="of a tree of 5"):
        shown_root(5, {place: bytes(32) for place in places}, ())
    with pytest.raises(ProtocolError, match="without a leaf"):
        MerkleTree([])
