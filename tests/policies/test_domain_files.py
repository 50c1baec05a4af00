"""A domain in a file beside the policy: what loads, what is refused in which words, and what a change of it is."""

import os
from pathlib import Path

import pytest

from policies.document.catalogue import published
from policies.document.describe import worded_policy
from policies.document.diff import compare
from policies.document.domain_files import KEPT, kept_name
from policies.document.load import load, load_earlier, parse
from policies.document.policy import Policy
from policies.domains import LongDomain, digest_in, hash_of, text_of
from policies.errors import PolicyFileError
from policies.units import MAX_LONG_DOMAIN
from tests.harness.example_policy import Edit, edited

WARD = 'domain = ["medicine", "surgery", "unknown"], unknown = "unknown"'
CODES = (*(f"A{number:04}" for number in range(1999)), "unknown")
PLACE = "sources.visits.columns.ward"


def written(home: Path, raw: bytes, stated: str | None = None, *edits: Edit, name: str = "icd.txt") -> Path:
    """Write a policy whose wards stand in a file with these bytes; return its path."""
    (home / "icd.txt").write_bytes(raw)
    said = hash_of(raw.decode("utf-8", "replace").replace("\r\n", "\n").removesuffix("\n").split("\n"))
    hashed = f', domain_hash = "{stated or said}"' if stated != "" else ""
    path = home / "policy.toml"
    path.write_text(edited(Edit(WARD, f'domain_file = "{name}"{hashed}, unknown = "unknown"'), *edits))
    return path


def column(policy: Policy) -> LongDomain:
    source = policy.sources["visits"]
    found = published("ward", source.columns["ward"], source, 0).domain
    assert isinstance(found, LongDomain)
    return found


def test_a_file_of_values_is_the_domain_of_its_column(tmp_path: Path) -> None:
    text = text_of(CODES)
    for raw in (text, text[:-1], text.replace(b"\n", b"\r\n"), text.replace(b"\n", b"\r\n")[:-2]):
        read = load(written(tmp_path, raw)).policy
        assert read.sources["visits"].columns["ward"].members == CODES
        assert column(read) == LongDomain(digest_in(hash_of(CODES)), len(CODES)), "however its lines end"
        assert column(read).known == CODES
    assert f"one of the 2,000 values in icd.txt ({hash_of(CODES)})" in str(worded_policy(read))
    assert "A0001" not in str(read.sources["visits"].model_dump()), "a policy is shown with the hash, not the values"

    inside = tmp_path / "codes"
    inside.mkdir()
    (tmp_path / "icd.txt").rename(inside / "icd.txt")
    path = tmp_path / "policy.toml"
    path.write_text(path.read_text().replace('"icd.txt"', '"codes/icd.txt"'))
    assert load(path).policy.sources["visits"].columns["ward"].members == CODES


def test_a_short_file_is_published_as_a_list(tmp_path: Path) -> None:
    read = load(written(tmp_path, b"medicine\nsurgery\nunknown\n")).policy
    source = read.sources["visits"]
    assert published("ward", source.columns["ward"], source, 0).domain == ("medicine", "surgery", "unknown")


def test_an_int_column_has_ints(tmp_path: Path) -> None:
    values = [-1, *range(1500)]
    path = tmp_path / "policy.toml"
    (tmp_path / "codes.txt").write_bytes(text_of(values))
    stated = f'domain_file = "codes.txt", domain_hash = "{hash_of(values)}", unknown = -1'
    path.write_text(edited(Edit("domain = [-1, 0, 1, 2], unknown = -1", stated)))
    grade = load(path).policy.sources["visits"].columns["grade"]
    assert grade.members == tuple(values)
    assert grade.listed == LongDomain(digest_in(hash_of(values)), len(values))
    for line, text in enumerate(("x", "1.0", "+5", "007", "-0", "٣", "1_0", "9223372036854775808"), 1):
        lines = [str(value) for value in range(-1, line - 2)]
        (tmp_path / "codes.txt").write_text("\n".join([*lines, text]))
        with pytest.raises(PolicyFileError, match=rf"codes\.txt:{line}: .* is no whole number of 64 bits"):
            load(path)


REFUSED: tuple[tuple[bytes, str], ...] = (
    (b"", "icd.txt:1: the list has no value; write one value a line"),
    (b"\n", "icd.txt:1: an empty line; remove it"),
    (b"a\n\nunknown\n", "icd.txt:2: an empty line; remove it"),
    (b"a\nunknown\n\n", "icd.txt:3: an empty line; remove it"),
    (b"a\r\nunknown\r\na\r\n", "icd.txt:3: 'a' stands on line 1 too; remove one of the two"),
    (b"a\n" + b"x" * 81 + b"\nunknown", "icd.txt:2: a value of 81 characters, at most 80; shorten it"),
    (b"a\nb\xff\nunknown", "icd.txt:2: byte 0xff is not UTF-8; save the file as UTF-8"),
    ("\ufeffa\nunknown".encode(), "icd.txt:1: it begins with a byte order mark; save the file as UTF-8 without one"),
    ("a\n\u202eb\nunknown".encode(), "icd.txt:2: a character that is not seen or moves others (found '\\u202eb')"),
    (b"a\nb\rc\nunknown", "icd.txt:2: a character that is not seen or moves others (found 'b\\rc')"),
    (b"a\nb\tc\nunknown", "icd.txt:2: a character that is not seen or moves others (found 'b\\tc')"),
)


def problem_of(path: Path) -> str:
    with pytest.raises(PolicyFileError) as caught:
        load(path)
    (line,) = caught.value.message.splitlines()
    return line


def test_a_bad_file_is_refused_with_its_line_and_what_to_do(tmp_path: Path) -> None:
    for raw, text in REFUSED:
        path = written(tmp_path, raw)
        (number,) = [at for at, line in enumerate(path.read_text().split("\n"), 1) if line.startswith("ward ")]
        assert problem_of(path).startswith(f"{path}:{number}: {PLACE}.domain_file: {text}"), text
    many = "".join(f"{number}\n" for number in range(MAX_LONG_DOMAIN + 1)).encode()
    path = written(tmp_path, many)
    assert problem_of(path).endswith("icd.txt:1000001: more than 1,000,000 values; keep at most that many")
    path = written(tmp_path, many.removesuffix(b"1000000\n"), None, Edit('unknown = "unknown"', 'unknown = "7"'))
    assert column(load(path).policy).size == MAX_LONG_DOMAIN
    wide = "".join(f"{number:080}\n" for number in range(500_000)).encode()
    assert "icd.txt has more than 33,554,432 bytes; shorten its values" in problem_of(written(tmp_path, wide))
    path = written(tmp_path, b"a\nb\n")
    assert "unknown = 'unknown' must be a member of domain" in problem_of(path)


def test_a_hash_that_is_missing_or_differs_names_the_one_to_write(tmp_path: Path) -> None:
    right = hash_of(CODES)
    path = written(tmp_path, text_of(CODES), "")
    said = problem_of(path)
    assert f'{PLACE}.domain_hash: missing; it is mandatory beside domain_file; write domain_hash = "{right}"' in said
    path = written(tmp_path, text_of(CODES), f"sha256:{'0' * 64}")
    said = problem_of(path)
    assert f"{PLACE}.domain_hash: icd.txt has another hash than stated (found {right})" in said
    assert f'write domain_hash = "{right}", and let the policy be signed anew as for any change' in said
    path.write_text(path.read_text().replace(f"sha256:{'0' * 64}", right))
    assert column(load(path).policy).name == right, "the remedy works"


def test_only_a_file_of_the_policys_own_directory_is_read(tmp_path: Path) -> None:
    home, outside = tmp_path / "home", tmp_path / "outside.txt"
    home.mkdir()
    outside.write_bytes(text_of(CODES))
    (home / "link.txt").symlink_to(outside)
    (home / "around").symlink_to(tmp_path)
    (home / "loop").symlink_to(home / "loop")
    (home / "directory").mkdir()
    os.mkfifo(home / "pipe")
    away = "lies outside the directory of the policy; put the file itself beside the policy"
    for name, text in (
        ("../outside.txt", away),
        (str(outside), away),
        ("link.txt", away),
        ("around/outside.txt", away),
        ("directory", "is no file; put a file with one value a line"),
        ("pipe", "is no file"),
        ("loop", ""),
        ("nowhere.txt", "nowhere.txt is missing; put a file with one value a line, in UTF-8, beside the policy"),
        ("", "not the name of a file"),
        ("x" * 201, "not the name of a file"),
    ):
        path = written(home, text_of(CODES), name=name)
        assert text in problem_of(path), name


def test_the_keys_of_a_domain_in_a_file_fit_each_other(tmp_path: Path) -> None:
    stated = hash_of(CODES)
    kept = f'domain_file = "icd.txt", domain_hash = "{stated}"'
    (tmp_path / "icd.txt").write_bytes(text_of(CODES))
    path = tmp_path / "policy.toml"
    for edit, text in (
        (Edit(WARD, f"{WARD}, {kept}"), "the column has a domain too; remove one of the two"),
        (Edit(WARD, f'{WARD}, domain_hash = "{stated}"'), "there is no domain_file that it is the hash of"),
        (Edit("step = 0.01", f"step = 0.01, {kept}"), "a decimal column has no domain; remove domain_file"),
        (Edit(WARD, f'domain_file = 7, domain_hash = "{stated}"'), "not the name of a file (found 7)"),
        (Edit(WARD, f'{kept}, unknown = "unknown", case = "ignore"'), 'write case = "exact" for this column'),
    ):
        path.write_text(edited(edit))
        assert text in problem_of(path), text
    with pytest.raises(PolicyFileError, match="this text is read without one"):
        parse(edited(Edit(WARD, f'{kept}, unknown = "unknown"')).encode(), "policy.toml")
    path.write_text(edited(Edit("[-1, 0, 1, 2]", str(list(range(-1, 1000))))))
    assert 'put up to 1,000,000 into a file, one a line, and write domain_file = "FILE" instead' in problem_of(path)


def test_a_change_of_the_values_is_a_change_of_the_policy(tmp_path: Path) -> None:
    (old := tmp_path / "old").mkdir()
    (new := tmp_path / "new").mkdir()
    before = load(written(old, text_of(CODES)))
    for values, effect, told in (
        ((*CODES, "B0"), "loosens", 'adds "B0"'),
        (CODES[1:], "tightens", 'removes "A0000"'),
        (("B0", *CODES[1:]), "loosens", 'adds "B0"; removes "A0000"'),
        (CODES[::-1], "neither", "the same members in another order"),
    ):
        after = load(written(new, text_of(values)))
        assert after.digest != before.digest, "the policy's own hash covers the values"
        changes = {".".join(one.path): one for one in compare(before.policy, after.policy)}
        assert str(changes[f"{PLACE}.domain"]) == f"{effect:<8}  {PLACE}.domain: {told}"
        assert changes[f"{PLACE}.domain_hash"].effect == "neither"
        assert len(changes) == 2
    inline = parse(edited().encode(), "policy.toml")
    same = load(written(new, b"medicine\nsurgery\nunknown\n")).policy
    assert {one.effect for one in compare(inline, same)} == {"neither"}, "the same values, in a file"
    (other := compare(inline, before.policy))
    assert [one.effect for one in other if one.path[-1] == "domain"] == ["loosens"]


def test_a_version_before_is_read_with_the_values_that_it_had(tmp_path: Path) -> None:
    path = written(tmp_path, text_of(CODES))
    accepted = path.rename(tmp_path / "policy.accepted.toml")
    (tmp_path / "icd.txt").write_bytes(text_of(CODES[1:]))
    with pytest.raises(PolicyFileError, match="give the file of the later version another name"):
        load_earlier(accepted)
    (tmp_path / KEPT).mkdir()
    (tmp_path / KEPT / kept_name(hash_of(CODES))).write_bytes(text_of(CODES))
    assert load_earlier(accepted).policy.sources["visits"].columns["ward"].members == CODES
    with pytest.raises(PolicyFileError, match="has another hash than stated"):
        load(accepted)
    (tmp_path / KEPT / kept_name(hash_of(CODES))).write_bytes(text_of(CODES[:-1]))
    with pytest.raises(PolicyFileError, match="give the file of the later version another name"):
        load_earlier(accepted)
