"""`consilo-silo put-in-force`: a draft becomes the next version in production in one step, or nothing is written."""

import shutil
import time
import tomllib
from functools import partial
from pathlib import Path

import pytest

from crypto.keys import Secret, SigningKey, read_key_file, write_key_file
from policies.document.edit import edited
from policies.document.load import load
from policies.document.signatures import admit, read_signatures, what_is_signed
from policies.errors import PolicyFileError
from silo_node.data.measure import measure
from silo_node.doctor import examine
from silo_node.errors import HomeError
from silo_node.home import ACCEPTED, check_may_serve
from silo_node.owner.cli import main
from tests.harness.example_policy import NOW
from tests.harness.example_policy import edited as example


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "policy.toml").write_text(example())
    (tmp_path / "silo.toml").write_text(f'federation = "health"\nauthority = "ed25519:{"0" * 64}"\ntick_ms = 0\n')
    for name in ("dpo", "ciso"):
        write_key_file(tmp_path / f"{name}.key", Secret.generate())
    return tmp_path


def test_keys_are_changed_and_every_other_line_stays() -> None:
    text = '# top\nmode = "trial"  # why\n\n[a]  # here\nx = 1\ny = [1, 2]\n\n[a.b]\nx = 2\n[people."d@x"]\nkey = "k"\n'
    cases = {
        ("mode",): ("production", 'mode = "production"\n'),
        ("a", "x"): (7, "[a]  # here\nx = 7\ny"),
        ("a", "z"): ({"need": 1, "of": ["d"]}, '[a]  # here\nz = { need = 1, of = ["d"] }\nx = 1'),
        ("a", "b", "x"): ("two", '[a.b]\nx = "two"\n'),
        ("people", "d@x", "key"): ("q", '[people."d@x"]\nkey = "q"\n'),
        ("people", "new@x", "key"): ("q", '\n[people."new@x"]\nkey = "q"\n'),
        ("top",): (1, "top = 1\n# top"),
    }
    for path, (value, expected) in cases.items():
        changed = edited(text, {path: value}, "policy.toml")
        assert expected in changed, path
        assert len(set(text.split("\n")) - set(changed.split("\n"))) <= 1, "one line at most is another"
    for unfit in ("a = { x = 1 }\n", "a.x = 1\n", "[a]\nx = [\n 1,\n]\n", "x = 1\n[a]\nx.y = 2\n"):
        with pytest.raises(PolicyFileError, match="cannot be changed line by line") as caught:
            edited(unfit, {("a", "x"): 5}, "policy.toml")
        assert caught.value.hint == "write by hand: a.x = 5; then give the same command again"
        with pytest.raises(PolicyFileError, match="line by line") as caught:
            edited(unfit, {("a", "x"): 5, ("mode",): "production"}, "policy.toml")
        assert "mode" not in caught.value.hint, "what can be changed is not left to people"
    by_hand = "a = { x = 5 }  # changed\n"
    assert edited(by_hand, {("a", "x"): 5}, "policy.toml") == by_hand


def test_a_draft_becomes_a_version_in_force(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    policy = home / "policy.toml"
    command = ["put-in-force", str(policy), "--signer", f"dpo={home / 'dpo.key'}", "--set", "protection.max_missing=0"]
    public = SigningKey(Secret.generate()).public
    assert main([*command, "--signer", f"ciso={public}"]) == 0
    said = capsys.readouterr().out.splitlines()
    first = load(policy)
    assert said[-3] == f"{policy}: version 1, mode production (sha256 {first.digest.hex()})"
    assert said[-2] == "enough by this version: 1 of 1 signatures (dpo signed)"
    assert said[-1] == f"next: consilo-silo serve --policy {policy}"
    assert said[-4].startswith("added: compute.seconds = 20: each contribution leaves then; no plan could be timed (")
    assert said[:-4] == list(what_is_signed(first, None)), "whoever signs is shown all of it"
    assert first.policy.compute is not None
    assert first.policy.compute.seconds == 20
    assert first.policy.protection.max_missing == 0
    assert first.policy.people["ciso"].key == str(public)
    admit(first, "health", read_signatures(policy), None, NOW)
    before, after = tomllib.loads(example()), tomllib.loads(policy.read_text())
    assert {key for key in after if after[key] != before.get(key)} <= {
        "mode",
        "policy",
        "protection",
        "people",
        "compute",
    }

    (home / ACCEPTED).write_bytes(policy.read_bytes())
    assert main(["put-in-force", str(policy), "--set", "disclosure.min_cohort=50"]) == 0
    assert "not enough by the version in force: 0 of 1 signatures (nobody signed)" in capsys.readouterr().out
    assert main(["put-in-force", str(policy), "--signer", f"dpo={home / 'dpo.key'}"]) == 0
    assert "enough by the version in force: 1 of 1 signatures (dpo signed)" in capsys.readouterr().out
    second = load(policy)
    assert second.policy.policy is not None
    assert (second.policy.policy.version, second.policy.policy.previous) == (2, f"sha256:{first.digest.hex()}")
    admit(second, "health", read_signatures(policy), first, NOW)


def test_a_policy_without_a_time_gets_one_that_is_enough_for_its_rows(
    founded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("silo_node.doctor.measure", partial(measure, clock=time.process_time))  # whatever else runs
    silo = Path(shutil.copytree(founded / "silos" / "aspen", tmp_path / "aspen"))
    policy, command = silo / "policy.toml", ["--signer", f"dpo={tmp_path / 'dpo.key'}", "--make-keys"]
    assert main(["put-in-force", str(policy), *command]) == 0
    assert "twice the longest of the plans timed here" in capsys.readouterr().out
    compute = load(policy).policy.compute
    assert compute is not None
    assert compute.fixed_seconds is not None
    assert 2 <= compute.fixed_seconds < 60
    (finding,) = [one for one in examine(policy, is_measuring=True) if one.what == "declared time"]
    assert finding.state == "ok", finding
    check_may_serve(load(policy).policy)
    policy.write_text(policy.read_text().replace("fixed_seconds", "# fixed_seconds"))
    with pytest.raises(HomeError, match="states no time") as caught:
        check_may_serve(load(policy).policy)
    assert "put-in-force" in str(caught.value.hint)
    capsys.readouterr()
    assert main(["check-policy", str(policy)]) == 0
    assert "warning: the policy of 'aspen' states no time" in capsys.readouterr().err
    assert main(["put-in-force", str(policy), *command, "--set", "compute.seconds=3"]) == 0
    assert "added" not in capsys.readouterr().out, "a time that was given is not measured"


def test_the_keys_of_who_signs_are_made_where_they_are_not_there(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    policy, made, kept = home / "policy.toml", home / "new.key", (home / "dpo.key").read_bytes()
    signers = ("--signer", f"dpo={home / 'dpo.key'}", "--signer", f"ciso={made}")
    assert main(["put-in-force", str(policy), *signers]) == 1
    assert "there is no key file" in capsys.readouterr().err
    assert main(["put-in-force", str(policy), *signers, "--make-keys"]) == 0
    assert "2 of 1 signatures (ciso, dpo signed)" in capsys.readouterr().out
    assert (home / "dpo.key").read_bytes() == kept, "a key is never overwritten"
    assert made.stat().st_mode & 0o777 == 0o600
    assert load(policy).policy.people["ciso"].key == str(SigningKey(read_key_file(made)).public)


def test_nothing_is_written_unless_the_whole_is_in_order(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    policy = home / "policy.toml"
    before = policy.read_bytes()
    dpo = f"dpo={home / 'dpo.key'}"
    for arguments, says in (
        ([], "nobody signs this policy"),
        (["--signer", f"dpo={home / 'none.key'}"], "there is no key file"),
        (["--signer", dpo, "--signer", dpo], "names 'dpo' twice"),
        (["--signer", dpo, "--need", "2"], f"{policy}:"),
        (["--signer", dpo, "--set", "protection.max_colluding=many"], f"{policy}:"),
        (["--signer", dpo, "--set", "a..b=1"], "names no key"),
        (["--signer", dpo, "--set", "a.b\nc=1"], "names no key"),
        (["--signer", "dpo=ed25519:12"], "is not a verification key"),
    ):
        assert main(["put-in-force", str(policy), *arguments]) == 1, arguments
        found = capsys.readouterr()
        assert says in found.err, (arguments, found.err)
        assert policy.read_bytes() == before
        assert sorted(one.name for one in home.iterdir()) == ["ciso.key", "dpo.key", "policy.toml", "silo.toml"]
    assert main(["put-in-force", str(policy), "--signer", dpo]) == 0
    assert main(["put-in-force", str(policy), "--signer", f"dpo={home / 'ciso.key'}"]) == 1
    assert "the policy has another key of 'dpo'" in capsys.readouterr().err
