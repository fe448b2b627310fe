"""Placeholders, and values that are taken out of whatever comes back."""

from __future__ import annotations

import base64
import json
from itertools import pairwise
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wasm_sandbox import Secret
from wasm_sandbox.egress.secrets import RunSecrets

VALUE = "sk-live/4eC39HqLyjWDar+jtT1zdp7dc"
VALUES = st.text(alphabet=[chr(code) for code in range(33, 127)], min_size=8, max_size=60)


def run_secrets(*values: str) -> RunSecrets:
    return RunSecrets({f"KEY{number}": Secret(value, ["a.test"]) for number, value in enumerate(values)})


def test_placeholders_are_random_for_each_run_and_say_their_name() -> None:
    first, second = run_secrets(VALUE).placeholders["KEY0"], run_secrets(VALUE).placeholders["KEY0"]
    assert first != second
    assert "KEY0" in first
    assert quote(first, safe="") == first


def test_placeholders_of_a_deterministic_run_are_the_same() -> None:
    given_secrets = {"KEY": Secret(VALUE, ["a.test"])}
    assert RunSecrets(given_secrets, True).placeholders == RunSecrets(given_secrets, True).placeholders


@pytest.mark.parametrize("before", [b"", b"u", b"us", b"user:"])
@pytest.mark.parametrize("after", [b"", b"x", b"xy"])
def test_a_value_is_found_in_base64_at_any_offset(before: bytes, after: bytes) -> None:
    secrets = run_secrets(VALUE)
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        text = secrets.scrub_bytes(encode(before + VALUE.encode() + after)).rstrip(b"=")
        assert text.count(b"*") >= len(text) - 12


@given(VALUES, st.binary(max_size=50), st.binary(max_size=50))
def test_no_common_form_of_a_value_is_left(value: str, before: bytes, after: bytes) -> None:
    secrets = run_secrets(value)
    raw = value.encode()
    for form in (raw, raw.hex().encode(), quote(value, safe="").encode(), json.dumps(value)[1:-1].encode()):
        data = before + form + after
        scrubbed = secrets.scrub_bytes(data)
        assert len(scrubbed) == len(data)
        assert form not in scrubbed or set(form) == {ord("*")}


@given(VALUES, st.binary(max_size=40), st.lists(st.integers(0, 200), max_size=12))
def test_pieces_are_scrubbed_as_the_whole_is(value: str, noise: bytes, cuts: list[int]) -> None:
    secrets = run_secrets(value)
    data = noise + value.encode() + noise + value.encode()[:5] + quote(value).encode()
    places = sorted({0, len(data), *(min(cut, len(data)) for cut in cuts)})
    stream = secrets.stream()
    parts = [stream.feed(data[start:end]) for start, end in pairwise(places)]
    joined = b"".join(parts) + stream.end()
    assert len(joined) == len(data)
    assert value.encode() not in joined or set(value) == {"*"}


def test_a_stream_holds_back_only_what_may_be_a_value() -> None:
    stream = run_secrets(VALUE).stream()
    assert stream.feed(b"data: tick\n\n") == b"data: tick\n\n"
    assert stream.feed(b"key=" + VALUE[:9].encode()) == b"key="
    assert stream.feed(b"!") == VALUE[:9].encode() + b"!"


def test_text_is_scrubbed_too() -> None:
    text = run_secrets(VALUE).scrub(f"é {VALUE} end")
    assert text == f"é {'*' * len(VALUE)} end"


def test_without_secrets_nothing_is_touched() -> None:
    stream = RunSecrets({}).stream()
    assert stream.feed(b"x" * 10) == b"x" * 10
    assert stream.end() == b""


def test_a_name_takes_the_place_of_a_placeholder() -> None:
    secrets = run_secrets(VALUE)
    placeholder = secrets.placeholders["KEY0"].encode()
    assert secrets.neutral(b"/x?key=" + placeholder) == b"/x?key={{KEY0}}"


@pytest.mark.parametrize(
    "forged", ["", "a", "secret-KEY0-", "secret-KEY1-" + "0" * 32, "secret-KEY0-" + "0" * 33, "secret-KEY0-" + "G" * 32]
)
def test_a_placeholder_that_is_none_is_passed_over(forged: str) -> None:
    given_secrets = {"KEY0": Secret("sk-0123456789", ["a.test"])}
    kept = RunSecrets(given_secrets).placeholders
    assert RunSecrets(given_secrets, kept={**kept, "OTHER": "x"}).placeholders == kept
    placeholder = RunSecrets(given_secrets, kept={"KEY0": forged}).placeholders["KEY0"]
    assert placeholder != forged
    assert len(placeholder) == len(kept["KEY0"])
