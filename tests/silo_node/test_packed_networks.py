"""Packed networks at a silo: kept under their hashes, shown in words, approved by a person's signature alone."""

import os
import re
from pathlib import Path

import numpy as np
import pytest

import silo_node.owner.cli
from crypto.errors import WireError
from crypto.keys import Secret, SigningKey, write_key_file
from policies.decision.network_approvals import network_status, subject_of_network
from policies.document.load import load
from policies.networks.graph import Graph
from policies.networks.packed import encoded, packed
from policies.networks.shipped.registry import SHIPPED
from policies.requests.approval import StoredVerdict
from silo_node.errors import SiloError
from silo_node.graphs.kept import MAX_SENT, UNUSED_S, KeptNetworks
from silo_node.home import federation_of, read_home
from silo_node.ledger.events import KeptInForce
from tests.harness.owner_home import NOW, PEOPLE, OwnerHome, founded_with_people

DPO, OWNER, CISO = PEOPLE


def a_file(seed: int = 0) -> bytes:
    """Return a packed perceptron of three inputs."""
    graph = Graph.model_validate(
        {
            "inputs": ({"name": "row", "shape": (3,)},),
            "weights": (
                {"name": "first.weight", "shape": (4, 3), "initial": "uniform", "bound": "0.5"},
                {"name": "last.weight", "shape": (1, 4), "initial": "uniform", "bound": "0.5"},
            ),
            "calls": (
                {"call": "linear", "name": "first", "of": "row", "weight": "first.weight", "bias": None},
                {"call": "relu", "name": "bent", "of": "first"},
                {"call": "linear", "name": "last", "of": "bent", "weight": "last.weight", "bias": None},
            ),
            "output": "last",
        }
    )
    weights = {one.name: np.full(one.shape, 0.25 + seed, np.float32) for one in graph.weights}
    return encoded(packed(graph, weights))


@pytest.fixture
def owner(founded: Path, tmp_path: Path) -> OwnerHome:
    home = founded_with_people(founded, tmp_path)
    home.open().close()
    return home


def command(*arguments: str) -> int:
    return silo_node.owner.cli.main(list(arguments))


def kept(owner: OwnerHome) -> KeptNetworks:
    return KeptNetworks(owner.policy.parent, owner.ledger)


def is_approved(owner: OwnerHome, name: str) -> bool:
    policy = load(owner.policy).policy
    return kept(owner).is_approved(policy, federation_of(owner.policy.parent), name, 2**40)


def added(owner: OwnerHome, seed: int = 0) -> str:
    return kept(owner).add(a_file(seed)).name


def approve(owner: OwnerHome, name: str, *more: str, who: str = DPO) -> int:
    given = ("--as", who, "--key", str(owner.files[who]), "--policy", str(owner.policy))
    return command("model", "approve", name, *given, *more)


def test_an_owner_adds_looks_at_approves_and_removes(
    owner: OwnerHome, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, policy = tmp_path / "net.consilo", ("--policy", str(owner.policy))
    file.write_bytes(a_file())
    assert command("model", "show", str(file), *policy) == 0
    shown = capsys.readouterr().out
    assert command("model", "add", str(file), *policy) == 0
    out = capsys.readouterr().out
    name = re.findall(r"sha256:[0-9a-f]{64}", out)[0]
    assert 'it needs [training.networks] allow = "approved"' in out
    assert shown.startswith(name)
    for text in ("first: ", "bent: ", "takes:", "no network is trained here", "operations and", "could reveal:"):
        assert text in shown, text
    assert "may learn single rows by heart" in shown
    assert command("model", "show", name, *policy) == 0
    assert capsys.readouterr().out == shown
    assert command("model", "list", *policy) == 0
    assert f"{name}  approved by nobody" in capsys.readouterr().out
    assert not is_approved(owner, name)
    assert approve(owner, name[:24]) == 0
    assert capsys.readouterr().out == f"{DPO} has approved {name}\n"
    assert is_approved(owner, name)
    assert command("model", "list", *policy) == 0
    assert f"{name}  approved by {DPO}" in capsys.readouterr().out
    assert command("model", "remove", name, *policy) == 0
    assert f"{DPO} approved it" in capsys.readouterr().out
    assert kept(owner).find(name) is None
    assert command("model", "show", name, *policy) == 1
    assert "no packed networks here are named" in capsys.readouterr().err
    assert command("model", "add", str(tmp_path / "none"), *policy) == 1
    assert "there is no file" in capsys.readouterr().err


def test_an_approval_is_withdrawn_by_any_of_those_people_and_given_again_by_the_same(owner: OwnerHome) -> None:
    name = added(owner)
    assert approve(owner, name) == 0
    assert approve(owner, name, "--withdraw", who=OWNER) == 0
    assert not is_approved(owner, name), "one who knows a reason is enough"
    store = owner.open(NOW)
    entries = store.entries(10)
    store.audit()
    store.close()
    assert sum(isinstance(one.event, KeptInForce) for one in entries) == 2, "the log names each version"


def test_a_key_that_the_policy_does_not_give_signs_nothing(
    owner: OwnerHome, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = added(owner)
    other = tmp_path / "other.key"
    write_key_file(other, Secret(bytes([77]) * 32))
    given = ("model", "approve", name, "--policy", str(owner.policy), "--key", str(other))
    assert command(*given, "--as", DPO) == 1
    assert "the key is not the one that the policy gives" in capsys.readouterr().err
    assert command(*given, "--as", "nobody") == 1
    assert "is not in the policy's [people]" in capsys.readouterr().err
    assert not is_approved(owner, name)


def test_a_forged_or_foreign_approval_counts_for_nothing(owner: OwnerHome) -> None:
    name, policy, federation = added(owner), load(owner.policy).policy, federation_of(owner.policy.parent)
    silo, key = policy.silo.id, owner.keys[DPO]
    subject = subject_of_network(federation, name)
    genuine = StoredVerdict.signed(DPO, key, silo, subject, "approve", NOW)
    forged = {
        "by another key": StoredVerdict.signed(DPO, SigningKey(Secret(bytes([9]) * 32)), silo, subject, "approve", NOW),
        "of another silo": StoredVerdict.signed(DPO, key, "birch", subject, "approve", NOW),
        "of another federation": StoredVerdict.signed(
            DPO, key, silo, subject_of_network("others", name), "approve", NOW
        ),
        "of another network": StoredVerdict.signed(
            DPO, key, silo, subject_of_network(federation, "sha256:" + 64 * "0"), "approve", NOW
        ),
        "of a request": StoredVerdict.signed(DPO, key, silo, bytes(32), "approve", NOW),
    }
    assert network_status(policy, federation, name, [genuine], NOW).is_given
    for what, one in forged.items():
        store = owner.open(NOW)
        kept(owner).add_verdict(one, store.put_in_force)
        store.close()
        assert not is_approved(owner, name), what


def test_a_list_of_approvals_that_the_log_does_not_name_approves_nothing(owner: OwnerHome) -> None:
    name = added(owner)
    assert approve(owner, name) == 0
    (path,) = owner.policy.parent.glob("networks/approvals.[0-9a-f]*")
    whole = path.read_bytes()
    path.write_bytes(whole + whole)
    assert not is_approved(owner, name)
    path.unlink()
    assert not is_approved(owner, name)
    with pytest.raises(SiloError, match="which the log names"):
        kept(owner).verdicts(load(owner.policy).policy)
    path.write_bytes(whole)
    assert is_approved(owner, name)


def test_who_left_the_policy_approves_no_more(owner: OwnerHome) -> None:
    name = added(owner)
    assert approve(owner, name, who=CISO) == 0
    assert is_approved(owner, name)
    text = owner.policy.read_text()
    start = text.index(f'[people."{CISO}"]')
    owner.policy.write_text(text[:start] + text[text.index("[[approvals]]") :])
    assert not is_approved(owner, name)


def test_a_file_that_was_altered_or_replaced_on_disk_is_not_taken(owner: OwnerHome) -> None:
    store = kept(owner)
    name, other = store.add(a_file()).name, a_file(1)
    (path,) = owner.policy.parent.glob("networks/*.consilo")
    found = store.find(name)
    assert found is not None
    assert store.find(name) is found, "kept in memory while the file is the same"
    whole = path.read_bytes()
    for what, data in (
        ("another network", other),
        ("a number altered", whole[:-1] + bytes([whole[-1] ^ 1])),
        ("cut short", whole[:-1]),
        ("more behind", whole + b"\0"),
        ("nothing", b""),
    ):
        path.write_bytes(data)
        assert store.find(name) is None, what
        with pytest.raises(SiloError, match="is not the network"):
            store.checked(name)
    path.write_bytes(whole)
    assert store.find(name) is not None
    with pytest.raises(WireError):
        store.add(b"CSN1" + bytes(20))


def test_what_analysts_send_is_bounded_and_dropped_when_unused(owner: OwnerHome) -> None:
    store, now = kept(owner), 2_000_000_000.0
    own = store.add(a_file(1000)).name
    names = []
    for seed in range(MAX_SENT + 3):
        names.append(store.add(a_file(seed), is_sent=True).name)
        file = owner.policy.parent / "networks" / "sent" / f"{names[-1].removeprefix('sha256:')}.consilo"
        os.utime(file, (now - 10_000 + seed, now - 10_000 + seed))
    left = [one.name for one in store.listed() if one.is_sent]
    assert sorted(left) == sorted(names[3:]), "the oldest are dropped"
    store.drop_unused(now - 10_000 + 10 + UNUSED_S)
    assert {one.name for one in store.listed()} == {own, *names[10:]}
    store.drop_unused(now + 2 * UNUSED_S)
    assert [one.name for one in store.listed()] == [own], "what the owner added stays"


def test_a_silo_knows_its_networks(owner: OwnerHome) -> None:
    name = added(owner)
    silo = read_home(owner.policy).silo
    assert silo.graphs is not None
    assert silo.graphs.find(name) is not None


def test_the_names_of_shipped_networks_are_those_that_policies_know() -> None:
    from policies.networks.names import REGISTERED

    assert set(SHIPPED) == REGISTERED
