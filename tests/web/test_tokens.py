"""Token files: one reader for all servers, whose words name what is wrong and never a token."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from wasm_sandbox import Limits
from wasm_sandbox.web import holder_of, read_tokens

ALICE, BOB = "alice-has-a-token-of-her-own", "bob-has-a-token-of-his-own-too"


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("", "no token"),
        ("# only this", "no token"),
        ("[x]\ny = 1", "[[tokens]]"),
        ("short", "20 to 1000"),
        ("grün-0123456789abcdefgh", "printable"),
        (f"{ALICE} and more", "without spaces"),
        (f"# ours\n{ALICE}\nhush hush", "tokens.2.token"),
        (f"{ALICE}\n{ALICE}", "tokens.2: its name or its token is there twice"),
        ("[[tokens]]\nname = 'a'", "either token or sha256"),
        (f"[[tokens]]\nname = 'a'\ntoken = '{ALICE}'\nsha256 = '{'0' * 64}'", "either token or sha256"),
        ("[[tokens]]\nname = 'a'\ntoken = 'hush-short'", "20 to 1000"),
        ("[[tokens]]\nname = 'a'\ntoken = 'hush hush hush hush hush'", "without spaces"),
        (f"[[tokens]]\nname = 'a b'\ntoken = '{ALICE}'", "tokens.1.name"),
        (f"[[tokens]]\nname = 'a'\ntoken = '{ALICE}'\nlimit = 3", "tokens.1.limit"),
        (f"[[tokens]]\nname = 'a'\ntoken = '{ALICE}'\nlimits = {{ fuel = 0 }}", "tokens.1.limits.fuel"),
        (f"[[tokens]]\nname = 'a'\ntoken = '{ALICE}'\nfuel_per_minute = '1'", "tokens.1.fuel_per_minute"),
        (f"[[tokens]]\nname = 'a'\ntoken = '{ALICE}'\n[[tokens]]\nname = 'b'\ntoken = '{ALICE}'", "twice"),
        (f"[[tokens]]\nname = 'a'\ntoken = '{ALICE}'\n[[tokens]]\nname = 'a'\ntoken = '{BOB}'", "twice"),
        ("[[tokens]]\ntoken = hush", "no TOML"),
    ],
)
def test_a_token_file_that_is_wrong_is_refused_in_words_without_its_tokens(
    tmp_path: Path, text: str, word: str
) -> None:
    path = tmp_path / "tokens.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=r"tokens\.toml") as caught:
        read_tokens(path)
    assert word in str(caught.value)
    assert "hush" not in str(caught.value)
    assert ALICE not in str(caught.value)


def test_a_token_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(ValueError, match="cannot be read"):
            read_tokens(path)
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="UTF-8"):
        read_tokens(tmp_path / "binary")


def test_a_file_may_hold_the_digest_of_a_token_instead(tmp_path: Path) -> None:
    digest = hashlib.sha256(ALICE.encode()).hexdigest()
    (tmp_path / "t").write_text(f'[[tokens]]\nname = "a"\nsha256 = "{digest}"\n')
    (entry,) = read_tokens(tmp_path / "t")
    assert holder_of(ALICE, {entry.digest: entry.name}) == "a"


def test_a_file_of_lines_has_a_token_in_each(tmp_path: Path) -> None:
    (tmp_path / "t").write_text(f"\n# ours\n{ALICE}\n\n  {BOB}  \n", encoding="utf-8")
    entries = read_tokens(tmp_path / "t")
    assert [(entry.name, entry.token) for entry in entries] == [("token-1", ALICE), ("token-2", BOB)]
    assert (entries[0].limits, entries[0].max_sessions) == (Limits(), 20)


@pytest.mark.parametrize("token", ["", ALICE[:-1], f"{ALICE}x", f" {ALICE}", "x" * 100_000, "\udcff"])
def test_only_a_whole_token_has_a_holder(token: str) -> None:
    holders = {hashlib.sha256(known.encode()).digest(): known for known in (ALICE, BOB)}
    assert (holder_of(BOB, holders), holder_of(token, holders)) == (BOB, None)
