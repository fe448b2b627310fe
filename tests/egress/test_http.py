"""HTTP through the gate: what passes, what is refused, and what hostile guests and servers can do."""

from __future__ import annotations

import base64
from itertools import pairwise

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.egress.conversations import OK, VALUE, Conversation, with_secret
from wasm_sandbox import Network, Secret
from wasm_sandbox.egress.http import MAX_WAITING_BYTES, Ask, HttpGate
from wasm_sandbox.egress.secrets import RunSecrets

GET = b"GET /x?q=1 HTTP/1.1\r\nHost: a.test\r\nAccept: */*\r\n\r\n"


def requests_in(data: bytes) -> list[tuple[bytes, bytes, dict[bytes, bytes], bytes]]:
    """Method, target, headers and body of each request that a server would read."""
    found = []
    server = h11.Connection(h11.SERVER)
    server.receive_data(data)
    while True:
        event = server.next_event()
        if isinstance(event, h11.Request):
            found.append((bytes(event.method), bytes(event.target), dict(event.headers), b""))
        elif isinstance(event, h11.Data):
            method, target, headers, body = found[-1]
            found[-1] = method, target, headers, body + bytes(event.data)
        elif isinstance(event, h11.EndOfMessage):
            server.send(h11.Response(status_code=200, headers=[("content-length", "0")]))
            server.send(h11.EndOfMessage())
            if server.our_state is not h11.DONE:
                return found
            server.start_next_cycle()
        else:
            return found


# --- What passes -----------------------------------------------------------------------------------------


def test_a_request_and_its_answer_pass_and_are_counted() -> None:
    talk = Conversation().guest(GET).host(OK)
    assert talk.to_host == b"GET /x?q=1 HTTP/1.1\r\nhost: a.test\r\naccept: */*\r\n\r\n"
    assert talk.to_guest == b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    (request,) = talk.finished
    assert (request.method, request.url, request.status, request.bytes_in) == ("GET", "https://a.test/x?q=1", 200, 2)
    assert talk.close is None


def test_requests_follow_each_other_one_at_a_time_also_from_a_pipeline() -> None:
    talk = Conversation().guest(GET + GET.replace(b"/x", b"/y"))
    assert b"/y" not in talk.to_host
    assert talk.gate.is_busy
    talk.host(OK)
    assert b"/y" in talk.to_host
    talk.host(OK)
    assert [request.url for request in talk.finished] == ["https://a.test/x?q=1", "https://a.test/y?q=1"]
    assert not talk.gate.is_busy


@pytest.mark.parametrize(
    ("came", "outcome", "reason"),
    [
        (b"", "failed", "the guest closed the connection before the answer came"),
        (b"HTTP/1.1 200 OK\r\nContent-", "failed", "the guest closed the connection before the answer came"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no", "ok", None),
        (OK, "ok", None),
    ],
)
def test_a_guest_may_leave_when_it_has_read_as_much_as_it_wants(came: bytes, outcome: str, reason: str | None) -> None:
    talk = Conversation().guest(GET)
    if came:
        talk.host(came)
    talk.gate.leave()
    talk.host(b"")
    (request,) = talk.asked
    assert (request.outcome, request.reason) == (outcome, reason)
    assert talk.close is None


@pytest.mark.parametrize("came", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no", OK])
def test_a_request_whose_guest_has_ended_before_the_whole_answer_has_failed(came: bytes) -> None:
    talk = Conversation().guest(GET)
    if came:
        talk.host(came)
    talk.gate.cut("over")
    talk.host(b"")
    (request,) = talk.asked
    assert (request.outcome, request.reason) == (("ok", None) if came == OK else ("failed", "over"))
    assert talk.close is None


def test_bodies_pass_in_both_framings() -> None:
    head = b"POST /x HTTP/1.1\r\nHost: a.test\r\n"
    talk = Conversation().guest(head + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n")
    talk.host(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;x=y\r\nde\r\n0\r\nTrailer-Field: z\r\n\r\n")
    assert requests_in(talk.to_host)[0][3] == b"abc"
    assert talk.to_guest.endswith(b"\r\n\r\n2\r\nde\r\n0\r\n\r\n")
    talk.guest(head + b"Content-Length: 5\r\n\r\nhe").guest(b"llo")
    assert talk.to_host.endswith(b"hello")


@pytest.mark.parametrize("status", [204, 304])
def test_answers_without_a_body_have_none(status: int) -> None:
    talk = Conversation().guest(GET).host(b"HTTP/1.1 %d X\r\nETag: 1\r\n\r\n" % status)
    assert len(talk.finished) == 1
    assert talk.to_guest.endswith(b"\r\n\r\n")
    assert talk.guest(GET).host(OK).to_guest.endswith(b"ok")


def test_the_answer_to_head_keeps_its_length() -> None:
    talk = Conversation().guest(GET.replace(b"GET", b"HEAD")).host(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
    assert b"Content-Length: 1000" in talk.to_guest
    assert len(talk.finished) == 1


def test_a_client_waits_for_100_continue() -> None:
    talk = Conversation().guest(b"PUT /x HTTP/1.1\r\nHost: a.test\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n")
    assert b"expect: 100-continue" in talk.to_host
    assert talk.host(b"HTTP/1.1 100 Continue\r\n\r\n").to_guest == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert talk.guest(b"data").host(OK).to_guest.endswith(b"ok")


def test_an_answer_may_come_before_the_request_has_ended() -> None:
    talk = Conversation().guest(b"PUT /x HTTP/1.1\r\nHost: a.test\r\nContent-Length: 4\r\n\r\nda")
    talk.host(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
    assert talk.finished[0].status == 413
    assert talk.guest(b"ta" + GET).host(OK).to_guest.endswith(b"ok")


def test_http_1_0_passes_and_ends_with_its_answer() -> None:
    talk = Conversation().guest(b"GET /x HTTP/1.0\r\n\r\n")
    (request,) = requests_in(talk.to_host)
    assert request[2] == {b"host": b"a.test", b"connection": b"close"}
    talk.host(
        b"HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"
    )
    assert talk.to_guest.startswith(b"HTTP/1.1 200 OK")
    assert talk.to_guest.endswith(b"\r\n\r\nok")
    assert talk.guest(GET).to_host.count(b"GET") == 1


def test_an_answer_may_end_with_its_connection() -> None:
    talk = Conversation().guest(GET).host(b"HTTP/1.1 200 OK\r\n\r\nall").host(b" of it").host(b"")
    assert talk.to_guest.endswith(b"3\r\nall\r\n6\r\n of it\r\n0\r\n\r\n")
    assert talk.close is None
    assert talk.finished


def test_a_websocket_passes_in_both_directions_after_its_request_is_checked() -> None:
    ask = b"GET /ws HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nX: k\r\n\r\n"
    talk = Conversation().guest(ask)
    assert b"upgrade: websocket" in talk.to_host
    talk.host(b"HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n\x81\x02hi")
    assert talk.to_guest.endswith(b"\x81\x02hi")
    assert talk.guest(b"\x81\x83abcd").to_host.endswith(b"\x81\x83abcd")
    assert talk.finished[0].status == 101


def test_a_websocket_that_is_not_taken_stays_http() -> None:
    ask = b"GET /ws HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    talk = Conversation().guest(ask + b"GET /secret HTTP/1.1\r\nHost: b.test\r\n\r\n")
    assert talk.to_host.count(b"GET") == 1
    talk.host(OK)
    assert talk.close is not None
    assert talk.to_host.count(b"GET") == 1


def test_a_whole_url_is_sent_on_as_its_path() -> None:
    talk = Conversation().guest(b"GET https://A.test:443/x?y HTTP/1.1\r\nHost: A.TEST.\r\n\r\n")
    assert talk.to_host.startswith(b"GET /x?y HTTP/1.1\r\nhost: a.test\r\n")


def test_headers_of_one_connection_are_not_sent_on() -> None:
    talk = Conversation().guest(
        b"GET / HTTP/1.1\r\nHost: a.test\r\nConnection: keep-alive, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: 3\r\n"
        b"Proxy-Authorization: x\r\nTE: trailers\r\nX-Kept: 2\r\n\r\n"
    )
    assert requests_in(talk.to_host)[0][2] == {b"host": b"a.test", b"x-kept": b"2"}


def test_an_address_of_ipv6_is_the_host_of_its_connection() -> None:
    gate = HttpGate(Network(["[::1]:8080"]), "::1", 8080, RunSecrets({}))
    (ask,) = gate.from_guest(b"GET / HTTP/1.1\r\nHost: [0::1]:8080\r\n\r\n")
    assert isinstance(ask, Ask)
    assert ask.request.url == "http://[::1]:8080/"


TOKENS = st.text(alphabet="abcdefghijklmnopqrstuvwxyz-", min_size=1, max_size=12)
OWN = {"host", "connection", "content-length", "transfer-encoding", "upgrade", "expect", "te", "trailer", "keep-alive"}
FIELDS = st.lists(
    st.tuples(
        TOKENS.filter(lambda name: name not in OWN and not name.startswith("proxy-")),
        st.text(alphabet=[chr(code) for code in range(33, 127)], max_size=20),
    ),
    max_size=6,
)
TARGETS = st.text(alphabet=[chr(code) for code in range(33, 127) if chr(code) != "#"], max_size=40).map("/".__add__)
METHODS = st.sampled_from(["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"])


@given(METHODS, TARGETS, FIELDS, st.binary(max_size=200), st.booleans(), st.lists(st.integers(0, 600), max_size=8))
def test_any_request_of_a_right_client_passes_unchanged_in_meaning(
    method: str, target: str, fields: list[tuple[str, str]], body: bytes, is_chunked: bool, cuts: list[int]
) -> None:
    """And the same, wherever its bytes are cut."""
    client = h11.Connection(h11.CLIENT)
    framing = [("transfer-encoding", "chunked")] if is_chunked else [("content-length", str(len(body)))]
    made = h11.Request(method=method, target=target, headers=[("Host", "a.test"), *fields, *framing])
    data = client.send(made) or b""
    data += (client.send(h11.Data(data=body)) if body else b"") or b""
    data += client.send(h11.EndOfMessage()) or b""
    places = sorted({0, len(data), *(min(cut, len(data)) for cut in cuts)})
    talk = Conversation()
    for start, end in pairwise(places):
        talk.guest(data[start:end])
    assert talk.close is None
    (request,) = requests_in(talk.to_host)
    assert request[:2] == (method.encode(), target.encode())
    assert request[3] == body
    assert {name.encode(): value.encode() for name, value in fields}.items() <= request[2].items()


def body_as_read(talk: Conversation) -> bytes:
    """Body of the answer that a guest got, as a client reads it."""
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method="GET", target="/", headers=[("Host", "a.test")]))
    client.send(h11.EndOfMessage())
    client.receive_data(talk.to_guest)
    got = b""
    while not isinstance(event := client.next_event(), h11.EndOfMessage):
        got += bytes(event.data) if isinstance(event, h11.Data) else b""
    return got


@given(
    st.binary(max_size=300), st.sampled_from(["length", "chunked", "end"]), st.lists(st.integers(0, 600), max_size=8)
)
def test_any_answer_passes_unchanged_wherever_it_is_cut(body: bytes, framing: str, cuts: list[int]) -> None:
    heads = {"length": b"Content-Length: %d\r\n" % len(body), "chunked": b"Transfer-Encoding: chunked\r\n", "end": b""}
    chunk = b"%x\r\n%s\r\n" % (len(body), body) if body else b""
    data = b"HTTP/1.1 200 OK\r\n" + heads[framing] + b"\r\n" + (chunk + b"0\r\n\r\n" if framing == "chunked" else body)
    talk = with_secret().guest(GET)
    places = sorted({0, len(data), *(min(cut, len(data)) for cut in cuts)})
    for start, end in pairwise(places):
        talk.host(data[start:end])
    if framing == "end":
        talk.host(b"")
    got = body_as_read(talk)
    assert got == body


# --- What is refused -------------------------------------------------------------------------------------

START = b"GET / HTTP/1.1\r\nHost: a.test\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a.test\r\n"

SMUGGLING = {
    "length and chunks": POST + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks and length": POST + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
    "two lengths": POST + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
    "one length twice": POST + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
    "a list of lengths": POST + b"Content-Length: 3, 3\r\n\r\nabc",
    "a signed length": POST + b"Content-Length: +3\r\n\r\nabc",
    "a negative length": POST + b"Content-Length: -3\r\n\r\nabc",
    "a hexadecimal length": POST + b"Content-Length: 0x3\r\n\r\nabc",
    "an empty length": POST + b"Content-Length: \r\n\r\nabc",
    "an endless length": POST + b"Content-Length: " + b"9" * 40 + b"\r\n\r\nabc",
    "another encoding": POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "encoding twice": POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n0\r\n\r\n",
    "identity": POST + b"Transfer-Encoding: identity\r\n\r\n0\r\n\r\n",
    "a vertical tab": POST + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    "a quoted encoding": POST + b'Transfer-Encoding: "chunked"\r\n\r\n0\r\n\r\n',
    "chunks in 1.0": b"POST / HTTP/1.0\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a blank before the colon": POST + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    "a folded header": START + b"X: y\r\n Transfer-Encoding: chunked\r\n\r\n",
    "a folded first header": b"GET / HTTP/1.1\r\n Host: a.test\r\n\r\n",
    "bare LF": b"GET / HTTP/1.1\nHost: a.test\n\n",
    "bare LF in a head": b"GET / HTTP/1.1\r\nHost: a.test\nX: y\r\n\r\n",
    "bare LF at its end": START + b"\n",
    "bare CR": START + b"X: y\rZ: w\r\n\r\n",
    "NUL": START + b"X: y\0\r\n\r\n",
    "a control character": START + b"X: y\x01\r\n\r\n",
    "a header without a colon": START + b"nothing\r\n\r\n",
    "a header without a name": START + b": x\r\n\r\n",
    "no Host": b"GET / HTTP/1.1\r\nX: y\r\n\r\n",
    "two Hosts": START + b"Host: a.test\r\n\r\n",
    "another Host": b"GET / HTTP/1.1\r\nHost: b.test\r\n\r\n",
    "another port": b"GET / HTTP/1.1\r\nHost: a.test:8443\r\n\r\n",
    "Host with a user": b"GET / HTTP/1.1\r\nHost: a.test@b.test\r\n\r\n",
    "Host with a path": b"GET / HTTP/1.1\r\nHost: a.test/x\r\n\r\n",
    "an empty Host": b"GET / HTTP/1.1\r\nHost: \r\n\r\n",
    "a URL of another host": b"GET https://b.test/ HTTP/1.1\r\nHost: a.test\r\n\r\n",
    "a URL with a user": b"GET https://a.test@b.test/ HTTP/1.1\r\nHost: a.test\r\n\r\n",
    "a URL of another scheme": b"GET http://a.test/ HTTP/1.1\r\nHost: a.test\r\n\r\n",
    "a URL with a backslash": b"GET https://a.test\\@b.test/ HTTP/1.1\r\nHost: a.test\r\n\r\n",
    "an authority": b"GET a.test:443 HTTP/1.1\r\nHost: a.test\r\n\r\n",
    "an asterisk": b"GET * HTTP/1.1\r\nHost: a.test\r\n\r\n",
    "a fragment": b"GET /x#y HTTP/1.1\r\nHost: a.test\r\n\r\n",
    "a target in latin-1": b"GET /\xe9 HTTP/1.1\r\nHost: a.test\r\n\r\n",
    "two blanks": b"GET  / HTTP/1.1\r\nHost: a.test\r\n\r\n",
    "a tab": b"GET\t/ HTTP/1.1\r\nHost: a.test\r\n\r\n",
    "HTTP/0.9": b"GET /\r\n\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "HTTP/1.2": b"GET / HTTP/1.2\r\nHost: a.test\r\n\r\n",
    "CONNECT": b"CONNECT a.test:443 HTTP/1.1\r\nHost: a.test\r\n\r\n",
    "TRACE": b"TRACE / HTTP/1.1\r\nHost: a.test\r\n\r\n",
    "h2c": START + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: x\r\n\r\n",
    "several upgrades": START + b"Upgrade: websocket, h2c\r\n\r\n",
    "a WebSocket with a body": START + b"Upgrade: websocket\r\nContent-Length: 1\r\n\r\nx",
    "a WebSocket by POST": POST + b"Upgrade: websocket\r\n\r\n",
    "an empty line first": b"\r\nGET / HTTP/1.1\r\nHost: a.test\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00",
    "many headers": START + b"" + b"X: y\r\n" * 300 + b"\r\n",
    "an endless head": START + b"X: " + b"y" * 70_000,
    "a head that is too long": START + b"X: " + b"y" * 70_000 + b"\r\n\r\n",
}  # fmt: skip


@pytest.mark.parametrize("form", SMUGGLING)
def test_no_byte_of_an_odd_request_is_sent_on(form: str) -> None:
    talk = Conversation().guest(SMUGGLING[form])
    assert talk.close is not None
    assert talk.close.is_refusal
    assert talk.to_host == b""
    slowly = Conversation()
    for at in range(min(len(SMUGGLING[form]), 300)):
        slowly.guest(SMUGGLING[form][at : at + 1])
    slowly.guest(SMUGGLING[form][300:])
    assert slowly.to_host == b""


CHUNKS = [
    b"-1\r\n\r\n", b"+2\r\nab\r\n", b"0x2\r\nab\r\n", b"2 \nab\r\n", b"2\nab\r\n",
    b"2\r\nabc\r\n0\r\n\r\n", b"g\r\n", b" 2\r\nab\r\n", b"2;\x00\r\nab\r\n", b"2;" + b"x" * 70_000,
    b"f" * 30 + b"\r\n", b"\r\n", b"0\r\nX: y\r\n\r\n", b"0\r\nHost: b\r\n\r\n", b"2\r\nab0\r\n\r\n",
]  # fmt: skip


@pytest.mark.parametrize("chunk", CHUNKS, ids=range(len(CHUNKS)))
def test_a_body_in_odd_chunks_ends_its_connection(chunk: bytes) -> None:
    head = b"POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n"
    talk = Conversation().guest(head + chunk + b"GET /smuggled HTTP/1.1\r\nHost: a.test\r\n\r\n")
    assert talk.close is not None
    assert [target for _, target, _, _ in requests_in(talk.to_host)] == [b"/"]


PIECES = [
    b"GET /in HTTP/1.1\r\n", b"POST /in HTTP/1.1\r\n", b"GET /out HTTP/1.1\r\n", b"Host: a.test\r\n",
    b"Host: b.test\r\n",
    b"Content-Length: 5\r\n", b"Content-Length: 0\r\n", b"Transfer-Encoding: chunked\r\n", b"X: ", b"0\r\n\r\n",
    b"5\r\nhello\r\n", b"hello", b"DELETE /out HTTP/1.1\r\nHost: a.test\r\n\r\n", b"\r\n", b"\n",
    b"\r", b" ", b";x", b"\0",
]  # fmt: skip


@given(
    st.lists(
        st.sampled_from(PIECES),
        max_size=14,
    ),
    st.lists(st.integers(0, 200), max_size=4),
)  # fmt: skip
def test_a_server_never_reads_a_request_that_was_not_checked(pieces: list[bytes], cuts: list[int]) -> None:
    data = b"".join(pieces)
    places = sorted({0, len(data), *(min(cut, len(data)) for cut in cuts)})
    talk = Conversation(Network(["GET,POST https://a.test/in"]))
    for start, end in pairwise(places):
        if talk.close is None:
            talk.guest(data[start:end])
    answered = 0
    while talk.close is None and answered < len(talk.asked) and talk.gate.is_busy:
        answered += 1
        talk.host(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    found = requests_in(talk.to_host)
    assert [(method.decode(), target) for method, target, _, _ in found] == [
        (request.method, b"/in") for request in talk.asked
    ]


def test_a_request_that_the_policy_does_not_allow_ends_its_connection_in_words() -> None:
    talk = Conversation(Network(["GET https://a.test/v1/*"])).guest(GET)
    assert talk.close is not None
    assert talk.close.reason == "the network policy does not allow GET https://a.test/x"
    assert "add 'GET https://a.test/x' to allow" in talk.close.detail
    assert talk.close.request is not None
    assert talk.close.request.outcome == "refused"
    assert talk.to_host == talk.to_guest == b""


@pytest.mark.parametrize(
    "header", [b"X-HTTP-Method-Override: DELETE", b"X-Original-URL: /admin", b"x-rewrite-url: /admin"]
)
def test_a_header_takes_no_place_of_what_was_checked(header: bytes) -> None:
    data = b"GET /v1/x HTTP/1.1\r\nHost: a.test\r\n" + header + b"\r\n\r\n"
    narrow = Conversation(Network(["GET https://a.test/v1/*"])).guest(data)
    assert narrow.close is not None
    assert narrow.to_host == b""
    assert Conversation().guest(data).close is None


def test_nothing_is_sent_on_before_it_is_allowed_nor_after_it_is_refused() -> None:
    talk = Conversation()
    talk.denies = "not today"
    talk.guest(b"POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 3\r\n\r\nabc")
    assert talk.to_host == b""
    assert talk.close is not None
    assert talk.close.reason == "not today"
    assert talk.guest(GET).to_host == b""


def test_a_guest_that_goes_in_the_middle_of_a_request_ends_the_connection() -> None:
    talk = Conversation().guest(b"POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 3\r\n\r\na").guest(b"")
    assert talk.close is not None
    assert Conversation().guest(GET).guest(b"").host(OK).to_guest.endswith(b"ok")


def test_a_guest_that_sends_on_and_on_is_told_to_wait() -> None:
    talk = Conversation().guest(GET)
    while not talk.gate.is_full:
        talk.guest(GET * 1000)
    assert talk.to_host.count(b"GET") == 1
    assert MAX_WAITING_BYTES < 1 << 20


# --- Hostile servers -------------------------------------------------------------------------------------

ANSWERS = {
    "an endless head": b"HTTP/1.1 200 OK\r\nX: " + b"y" * 70_000,
    "interim answers without an end": b"HTTP/1.1 102 Processing\r\n\r\n" * 20,
    "lengths that differ": b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    "odd chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    "no HTTP": b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
    "an answer too many": OK + OK,
    "another protocol that nobody asked for": b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\n\r\nGET",
    "NUL": b"HTTP/1.1 200 OK\r\nX: \0\r\n\r\n",
    "another encoding": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
}


@pytest.mark.parametrize("form", ANSWERS)
def test_a_server_that_breaks_the_protocol_ends_its_connection_only(form: str) -> None:
    talk = Conversation().guest(GET).host(ANSWERS[form])
    assert talk.close is not None
    assert not talk.close.is_refusal


def test_a_server_that_speaks_first_speaks_no_http() -> None:
    talk = Conversation().host(b"220 mail.test ESMTP\r\n")
    assert talk.close is not None
    assert "tcp://a.test:443" in talk.close.detail


def test_an_answer_that_ends_too_early_is_no_answer() -> None:
    talk = Conversation().guest(GET).host(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nab").host(b"")
    assert talk.close is not None
    assert talk.asked[0].outcome == "failed"
    assert Conversation().guest(GET).host(b"").close is not None
    assert Conversation().host(b"").close is None


@given(st.lists(st.binary(max_size=60), max_size=6))
def test_any_bytes_of_a_server_are_an_answer_or_its_end(pieces: list[bytes]) -> None:
    talk = Conversation().guest(GET)
    for piece in pieces:
        if talk.close is None:
            talk.host(b"HTTP/1.1 200 OK\r\n" + piece)
    assert talk.to_host.count(b"GET") == 1


# --- Secrets ---------------------------------------------------------------------------------------------


def request_with(talk: Conversation, line: str, target: str = "/", body: bytes = b"") -> dict[bytes, bytes]:
    line = line.replace("KEY", talk.secrets.placeholders["KEY"])
    target = target.replace("KEY", talk.secrets.placeholders["KEY"])
    head = f"POST {target} HTTP/1.1\r\nHost: a.test\r\n{line}\r\nContent-Length: {len(body)}\r\n\r\n"
    talk.guest(head.encode() + body)
    return requests_in(talk.to_host)[0][2]


def test_a_secret_is_put_into_a_named_header() -> None:
    headers = request_with(with_secret(), "Authorization: Bearer KEY\r\nAccept-Encoding: gzip")
    assert headers[b"authorization"] == f"Bearer {VALUE}".encode()
    assert headers[b"accept-encoding"] == b"identity"


def test_a_secret_is_put_nowhere_else() -> None:
    talk = with_secret(query=["key"])
    body = talk.secrets.placeholders["KEY"].encode()
    request_with(talk, "X-Other: KEY\r\nReferer: https://KEY", "/KEY?other=KEY", body)
    assert VALUE.encode() not in talk.to_host


@pytest.mark.parametrize("target", ["/?key=KEY", "/p?a=b&k%65y=KEY&c", "/?key=xKEYx"])
def test_a_secret_is_put_into_a_named_parameter(target: str) -> None:
    talk = with_secret(query=["key"])
    request_with(talk, "X: y", target)
    assert b"=sk-live%2F4eC39HqLyjWDar%2BjtT1zdp7dc" in talk.to_host.replace(b"=x", b"=")
    assert VALUE not in talk.asked[0].url


def test_a_secret_is_put_into_basic_authentication_unless_that_is_turned_off() -> None:
    for basic in (True, False):
        talk = with_secret(basic=basic)
        credentials = base64.b64encode(f"user:{talk.secrets.placeholders['KEY']}".encode()).decode()
        sent = request_with(talk, f"Authorization: Basic {credentials}")[b"authorization"]
        assert (base64.b64decode(sent[6:]) == f"user:{VALUE}".encode()) is basic


def test_a_secret_goes_over_tls_only() -> None:
    network = Network(["a.test"], secrets={"KEY": Secret(VALUE, ["a.test"])})
    talk = Conversation(network, is_tls=False)
    request_with(talk, "Authorization: KEY")
    assert VALUE.encode() not in talk.to_host


@given(st.lists(st.integers(0, 400), max_size=10), st.booleans())
def test_an_answer_never_holds_a_secret_wherever_it_is_cut(cuts: list[int], is_chunked: bool) -> None:
    echo = f"you sent {VALUE} and {base64.b64encode(VALUE.encode()).decode()}.".encode()
    head = b"HTTP/1.1 200 %s\r\nX-Echo: %s\r\n" % (VALUE.encode(), VALUE.encode())
    body = echo
    if is_chunked:
        head += b"Transfer-Encoding: chunked\r\n\r\n"
        half = len(echo) // 3
        body = b"%x\r\n%s\r\n%x\r\n%s\r\n0\r\n\r\n" % (half, echo[:half], len(echo) - half, echo[half:])
    else:
        head += b"Content-Length: %d\r\n\r\n" % len(echo)
    talk = with_secret().guest(GET)
    data = head + body
    places = sorted({0, len(data), *(min(cut, len(data)) for cut in cuts)})
    for start, end in pairwise(places):
        talk.host(data[start:end])
    assert talk.finished
    got = body_as_read(talk)
    assert len(got) == len(echo)
    assert VALUE.encode() not in got + talk.to_guest
    assert base64.b64encode(VALUE.encode())[:-4] not in got


def test_an_error_that_quotes_the_server_quotes_no_secret() -> None:
    talk = with_secret().guest(GET).host(f"HTTP/1.1 {VALUE}\r\n\r\n".encode())
    assert talk.close is not None
    assert "*" * len(VALUE) in talk.close.reason
    assert VALUE not in talk.close.reason + talk.close.detail + str(talk.asked)
