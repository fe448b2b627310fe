"""Runs that are recorded, and answered from their record."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.egress.conversations import VALUE, Conversation
from wasm_sandbox import InvalidNetwork, Network, Secret
from wasm_sandbox.egress import cassette
from wasm_sandbox.egress.cassette import Answer, Key, Player, Recorder

NETWORK = Network(["a.test"], secrets={"KEY": Secret(VALUE, ["a.test"], query=["key"])})


def ask(talk: Conversation, body: bytes = b"") -> None:
    target = f"/x?key={talk.secrets.placeholders['KEY']}"
    head = f"POST {target} HTTP/1.1\r\nHost: a.test\r\nContent-Length: {len(body)}\r\n\r\n"
    talk.guest(head.encode() + body)


def recorded(tmp_path: Path, *answers: bytes) -> Path:
    recorder = Recorder()
    talk = Conversation(NETWORK, recorder)
    for answer in answers:
        ask(talk, talk.secrets.placeholders["KEY"].encode())
        talk.host(answer)
    recorder.save(tmp_path / "tape.json")
    return tmp_path / "tape.json"


def answer_with(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nSet-Cookie: sid=abc123; Path=/\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)


def test_a_recorded_run_is_answered_in_order_without_a_server(tmp_path: Path) -> None:
    path = recorded(tmp_path, answer_with(b"one"), answer_with(b"two \xff"), b"HTTP/1.1 204 No Content\r\n\r\n")
    talk = Conversation(NETWORK, Player(path))
    for ending in (b"\r\n\r\none", b"\r\n\r\ntwo \xff", b"\r\n\r\n"):
        ask(talk, talk.secrets.placeholders["KEY"].encode())
        assert talk.to_guest.endswith(ending)
    assert [request.status for request in talk.finished] == [200, 200, 204]
    assert talk.to_host == b""
    ask(talk, talk.secrets.placeholders["KEY"].encode())
    assert talk.close is not None
    assert talk.close.reason.startswith("no answer is recorded for POST https://a.test/x?key=")


def test_another_body_is_another_request(tmp_path: Path) -> None:
    talk = Conversation(NETWORK, Player(recorded(tmp_path, answer_with(b"one"))))
    ask(talk, b"other")
    assert talk.close is not None
    assert "record it again" in talk.close.detail


def test_no_secret_and_no_cookie_is_in_the_file(tmp_path: Path) -> None:
    text = recorded(tmp_path, answer_with(VALUE.encode())).read_text()
    assert VALUE not in text
    assert "abc123" not in text
    assert "sid=left-out; Path=/" in text
    assert "{{KEY}}" in text


def test_a_client_that_waits_for_100_continue_goes_on_in_a_replay(tmp_path: Path) -> None:
    talk = Conversation(NETWORK, Player(recorded(tmp_path)))
    talk.guest(b"PUT /x HTTP/1.1\r\nHost: a.test\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n")
    assert talk.to_guest.startswith(b"HTTP/1.1 100 ")


def test_the_policy_holds_in_a_replay(tmp_path: Path) -> None:
    talk = Conversation(Network(["GET https://a.test/v1"]), Player(recorded(tmp_path)))
    talk.guest(b"GET /x HTTP/1.1\r\nHost: a.test\r\n\r\n")
    assert talk.close is not None
    assert "the network policy does not allow" in talk.close.reason


GOOD = {
    "method": "GET",
    "url": "https://a.test/",
    "body_sha256": "",
    "answer": {"status": 200, "headers": [], "text": ""},
}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "Expecting value"),
        ("[" * 100_000, "recursion|Expecting|nested"),
        ("[]", "its format is not"),
        ('{"format": "wasm-sandbox cassette", "version": 2}', "its version is 2, and 1 is read"),
        ('{"format": "wasm-sandbox cassette", "version": 1}', "it has no 'exchanges'"),
        ('{"format": "wasm-sandbox cassette", "version": 1, "exchanges": {}}', "no list"),
    ],
)
def test_a_file_that_is_no_cassette_is_refused_by_name(content: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "tape.json"
    path.write_text(content)
    with pytest.raises(InvalidNetwork, match=words) as caught:
        Player(path)
    assert "tape.json is no cassette" in str(caught.value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@given(st.sampled_from(["method", "url", "body_sha256", "answer", "status", "headers", "text", "base64"]), JSON)
def test_any_content_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, field: str, value: object) -> None:
    exchange = json.loads(json.dumps(GOOD))
    (exchange if field in exchange else exchange["answer"])[field] = value
    path = tmp_path_factory.mktemp("tape") / "tape.json"
    path.write_text(json.dumps({"format": "wasm-sandbox cassette", "version": 1, "exchanges": [exchange]}))
    try:
        player = Player(path)
    except InvalidNetwork:
        return
    assert player.answer(Key("never", "asked", "for")) is None


def test_an_answer_that_does_not_fit_ends_the_connection_only(tmp_path: Path) -> None:
    recorder = Recorder()
    talk = Conversation(Network(["a.test"]), recorder).guest(b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n")
    talk.host(answer_with(b"one"))
    path = tmp_path / "tape.json"
    recorder.save(path)
    path.write_text(path.read_text().replace('"one"', '"one and more"').replace("Path=/", "Path=/\\r\\nX: y"))
    talk = Conversation(Network(["a.test"]), Player(path)).guest(b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n")
    assert talk.close is not None


def test_a_file_is_bounded_when_it_is_read_and_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = recorded(tmp_path, answer_with(b"x" * 200))
    monkeypatch.setattr(cassette, "MAX_CASSETTE_BYTES", 100)
    with pytest.raises(InvalidNetwork, match="larger than"):
        Player(path)
    recorder = Recorder()
    recorder.add(Key("GET", "https://a.test/", ""), Answer(200, [], b"x" * 200))
    with pytest.raises(InvalidNetwork, match="record less"):
        recorder.save(path)
    with pytest.raises(InvalidNetwork, match="cannot be written"):
        Recorder().save(tmp_path / "missing" / "tape.json")
