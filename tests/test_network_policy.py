"""The policy of a network: hosts in every notation, entries, decisions, and files."""

from __future__ import annotations

import ipaddress
import posixpath
from pathlib import Path
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wasm_sandbox import InvalidNetwork, Network, Secret
from wasm_sandbox.network import canonical_host, path_readings

SECRET = "s3cr3t-value-of-a-test"


def may_connect(network: Network, host: str, port: int) -> bool:
    return network.check_connect(host, port).allowed


def may_request(network: Network, request: str) -> bool:
    method, _, url = request.partition(" ")
    scheme, _, rest = url.partition("://")
    place, _, path = rest.partition("/")
    host, _, port = place.partition(":")
    return network.check_request(
        method, scheme, host, int(port or {"https": 443, "http": 80}[scheme]), f"/{path}"
    ).allowed


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("API.Example.COM.", "api.example.com"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("BÜCHER。example", "xn--bcher-kva.example"),
        ("\uff45xample.com", "example.com"),
        ("127.0.0.1", "127.0.0.1"),
        ("0x7f.1", "127.0.0.1"),
        ("0177.0.0.01", "127.0.0.1"),
        ("2130706433", "127.0.0.1"),
        ("127.1", "127.0.0.1"),
        ("0x7F000001", "127.0.0.1"),
        ("\uff11\uff12\uff17.0.0.1", "127.0.0.1"),
        ("127.0.0.1.", "127.0.0.1"),
        ("[::1]", "::1"),
        ("0:0:0:0:0:0:0:1", "::1"),
        ("::ffff:7f00:1", "127.0.0.1"),
        ("[::FFFF:10.0.0.1]", "10.0.0.1"),
        ("_dmarc.example.com", "_dmarc.example.com"),
        ("localhost.", "localhost"),
    ],
)
def test_every_notation_of_a_host_is_one(text: str, host: str) -> None:
    assert canonical_host(text) == host


@pytest.mark.parametrize(
    "text",
    ["", ".", "a..b", "-a.com", "a b", "a/b", "a@b", "1.2.3.4.5", "256.1.1.1", "09.1.1.1", "x" * 64, "é" * 300,
     "faß.de", "fe80::1%eth0", "[::1", "::1::", "a\0b", "exa\nmple.com", "a.b%2ec", "4294967296", "a.1"],
)  # fmt: skip
def test_what_is_no_host_is_refused_by_name(text: str) -> None:
    with pytest.raises(InvalidNetwork):
        canonical_host(text)


@given(st.ip_addresses(v=4), st.data())
def test_an_address_is_the_same_in_any_notation(address: ipaddress.IPv4Address, data: st.DataObject) -> None:
    octets = list(address.packed)
    count = data.draw(st.integers(1, 4))
    last = int.from_bytes(bytes(octets[count - 1 :]), "big")
    notations = [data.draw(st.sampled_from(["{}", "0x{:x}", "0X{:X}", "0{:o}"])) for _ in range(count)]
    text = ".".join(form.format(part) for form, part in zip(notations, [*octets[: count - 1], last], strict=True))
    assert canonical_host(text) == str(address)


@given(st.text(max_size=300))
def test_any_text_is_a_host_or_refused_and_a_canonical_one_stays(text: str) -> None:
    try:
        host = canonical_host(text)
    except InvalidNetwork:
        return
    assert canonical_host(host) == host
    assert host.isascii()
    assert not set(host) & set(" /@?#\\%\r\n\0")


def test_a_bare_host_means_443_and_80_and_a_denied_one_every_port() -> None:
    network = Network(["api.example.com", "*.example.org:8443", "*:8080"], deny=["bad.example.com"])
    assert may_connect(network, "API.example.com.", 443)
    assert may_connect(network, "api.example.com", 80)
    assert not may_connect(network, "api.example.com", 81)
    assert may_connect(network, "a.b.example.org", 8443)
    assert not may_connect(network, "example.org", 8443)
    assert not may_connect(network, "badexample.org", 8443)
    assert may_connect(network, "anything.test", 8080)
    assert not may_connect(network, "bad.example.com", 8080)


def test_a_refusal_says_to_the_guest_what_and_to_the_host_which_entry() -> None:
    network = Network(["api.example.com", "GET https://hub.test/v1/*"], deny=["*.evil.test"])
    missing = network.check_connect("other.test", 443)
    assert missing.reason == "the network policy does not allow other.test:443"
    assert missing.detail.endswith("add 'other.test:443' to allow")
    assert "'*.evil.test' of deny" in network.check_connect("a.evil.test", 443).detail
    request = network.check_request("POST", "https", "hub.test", 443, "/v1/items?q=1")
    assert request.reason == "the network policy does not allow POST https://hub.test/v1/items"
    assert request.detail.endswith("add 'POST https://hub.test/v1/items' to allow")


def test_an_entry_with_a_method_and_a_path_allows_such_requests_only() -> None:
    network = Network(
        ["GET,HEAD https://hub.test/v1/*", "https://hub.test:8443/repos/*/issues", "http://hub.test/ping"]
    )
    assert may_request(network, "GET https://hub.test/v1/items?x=/../y")
    assert may_request(network, "HEAD https://hub.test/v1/")
    assert may_request(network, "GET https://hub.test/v1/a%20b")
    assert may_request(network, "DELETE https://hub.test:8443/repos/one/issues")
    assert may_request(network, "GET http://hub.test/ping")
    for refused in [
        "POST https://hub.test/v1/items", "get https://hub.test/v1/items", "GET https://hub.test/v2", "GET http://hub.test/v1/x",
        "GET https://hub.test/v1", "GET https://hub.test:8443/repos/a/b/issues", "GET https://hub.test:8443/repos/a%2fb/issues",
        "GET http://hub.test/ping/", "GET https://hub.test/V1/x",
    ]:  # fmt: skip
        assert not may_request(network, refused), refused


SLIPS = [
    "/v1/../admin", "/v1/%2e%2e/admin", "/v1/.%2E/admin", "/v1/%252e%252e/admin", "/v1/..;/admin", "/v1/..%2fadmin",
    "/v1\\..\\admin", "/v1/%5c..%5cadmin", "//v1/../admin", "/v1/./x", "/v1/%c0%ae%c0%ae/admin",
    "/v1/%u002e%u002e/admin",
    "/v1/..%00/admin", "/v1/x%0d%0aHost:y", "/v1/%ef%bc%8e%ef%bc%8e/admin", "/v1/..%3fx/admin", "/v1/%2e%2e;a=b/admin",
    "/v1/%25252525252e", "/v1/%", "/v1/é", "/v1/..%23/x",
]  # fmt: skip


@pytest.mark.parametrize("path", SLIPS)
def test_no_spelling_of_a_path_slips_past_an_entry(path: str) -> None:
    assert not Network(["https://hub.test/v1/*"]).check_request("GET", "https", "hub.test", 443, path).allowed


@pytest.mark.parametrize(
    "path",
    [
        "/admin/x",
        "/ADMIN/x",
        "/%61dmin/x",
        "/%2561dmin/x",
        "//admin/x",
        "/admin;a=b/x",
        "/admin%2fx",
        "/admin\\x",
        *SLIPS,
    ],
)
def test_no_spelling_of_a_path_slips_past_what_denies(path: str) -> None:
    network = Network(["hub.test"], deny=["https://hub.test/admin/*"])
    assert network.check_request("GET", "https", "hub.test", 443, "/adm/x").allowed
    assert not network.check_request("GET", "https", "hub.test", 443, path).allowed


@given(st.text(alphabet="ab/.%25ecfEF;\\?#\u0000é", max_size=30))
def test_whatever_a_server_reads_in_an_allowed_path_is_below_the_entry(tail: str) -> None:
    """Decoded up to three times, resolved as a file system would: never above."""
    path = f"/v1/{tail}"
    decision = Network(["https://hub.test/v1/*"]).check_request("GET", "https", "hub.test", 443, path)
    if not decision.allowed:
        return
    text = path.partition("?")[0]
    for _ in range(4):
        bare = "/".join(part.partition(";")[0] for part in text.replace("\\", "/").split("/"))
        assert posixpath.normpath(bare.partition("?")[0].partition("#")[0]).startswith("/v1")
        text = unquote(text)


def test_a_path_is_bounded() -> None:
    assert path_readings("/" + "a" * 20_000) is None


def test_any_protocol_passes_only_where_it_is_named() -> None:
    network = Network(["tcp://db.test:5432", "db.test:443"])
    assert network.check_connect("db.test", 5432).is_raw
    assert not network.check_connect("db.test", 443).is_raw
    assert not network.check_request("GET", "http", "db.test", 5432, "/").allowed


@pytest.mark.parametrize(
    ("allow", "deny"),
    [
        (["tcp://a.test:443", "a.test"], []),
        (["tcp://*.test:443", "*.b.test"], []),
        (["tcp://a.test:80"], ["http://a.test/x"]),
        (["*", "tcp://a.test:80"], []),
    ],
)
def test_an_entry_for_any_protocol_overlaps_no_other(allow: list[str], deny: list[str]) -> None:
    with pytest.raises(InvalidNetwork, match="leave out one of them"):
        Network(allow, deny=deny)


@pytest.mark.parametrize(
    "entry",
    ["", "a b", "a:0", "a:99999", "a:x", "a:", "ftp://a", "https://u@a/", "https://a/?q", "https://a/../b",
     "https://a/**", "get https://a/", "tcp://a", "tcp://a:1/x",
     "GET tcp://a:1", "*.1.2.3.4", "a.*.b", "faß.de", "https://", "1.2.3.256"],
)  # fmt: skip
def test_a_wrong_entry_is_refused_by_name_and_with_the_remedy(entry: str) -> None:
    with pytest.raises(InvalidNetwork, match="write 'host', 'host:port'") as caught:
        Network([entry])
    assert repr(entry) in str(caught.value)


@given(st.text(max_size=40))
def test_any_entry_is_read_or_refused(entry: str) -> None:
    try:
        network = Network([entry], deny=[entry])
    except InvalidNetwork:
        return
    assert network.rules[0].host == network.denials[0].host


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"max_connections": 401}, "max_connections must be a whole number from 1 to 400"),
        ({"max_requests": 0}, "max_requests"),
        ({"max_bytes_in": True}, "max_bytes_in"),
        ({"io_seconds": 0}, "io_seconds must be a number of seconds"),
        ({"connect_seconds": float("nan")}, "connect_seconds"),
        ({"private": 1}, "private must be True or False"),
        ({"on_request": 3}, "on_request must be callable"),
        ({"record": "a", "replay": "b"}, "either recorded or replayed"),
        ({"proxy": "socks5://a:1"}, "proxy must be http://host:port"),
        ({"secrets": {"A=B": Secret(SECRET, ["a.test"])}}, "'A=B' cannot be the name of a secret"),
        ({"secrets": {"A": SECRET}}, "the secret A must be a Secret"),
        ({"allow": "a.test"}, "allow must be a list of strings"),
        ({"allow": [b"a.test"]}, "allow: bytes is no string"),
    ],
)
def test_a_wrong_option_is_refused_by_name(options: dict[str, object], words: str) -> None:
    with pytest.raises(InvalidNetwork, match=words):
        Network.of({"allow": ["a.test"], **options})


def test_a_network_is_given_in_short() -> None:
    network = Network(["a.test", "b.test:8443"])
    assert Network.of("a.test, b.test:8443") == network
    assert Network.of(["a.test", "b.test:8443"]) == network
    assert Network.of(network) is network
    assert Network.read("GET https://a.test/policy.toml").allow == ("GET https://a.test/policy.toml",)
    with pytest.raises(InvalidNetwork, match="not int"):
        Network.of(3)
    with pytest.raises(InvalidNetwork, match="there is no alow of a network"):
        Network.of({"alow": []})


def test_a_secret_is_never_shown() -> None:
    network = Network(["a.test"], secrets={"KEY": Secret(SECRET, ["a.test"])})
    assert SECRET not in repr(network)
    assert SECRET not in str(network.secrets)


@pytest.mark.parametrize(
    "value", ["", "short", "a" * 16_385, "line\nbreak", " blank-before", "ünïcode", "nul\0inside", None]
)
def test_a_value_that_cannot_be_kept_secret_is_refused_unseen(value: str) -> None:
    with pytest.raises(InvalidNetwork) as caught:
        Secret(value, ["a.test"])
    assert not value or value not in str(caught.value)


def test_a_secret_goes_to_its_hosts_over_tls() -> None:
    secret = Secret(SECRET, ["a.test", "*.b.test:8443", "http://c.test:8080"])
    assert secret.goes_to("a.test", 443, is_tls=True)
    assert not secret.goes_to("a.test", 443, is_tls=False)
    assert not secret.goes_to("a.test", 8443, is_tls=True)
    assert secret.goes_to("x.b.test", 8443, is_tls=True)
    assert secret.goes_to("c.test", 8080, is_tls=False)
    assert not secret.goes_to("c.test", 8080, is_tls=True)
    with pytest.raises(InvalidNetwork, match="name them"):
        Secret(SECRET, [])
    with pytest.raises(InvalidNetwork, match=r"a secret's host 'tcp://a\.test:1'"):
        Secret(SECRET, ["tcp://a.test:1"])


def test_a_network_is_read_from_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITHUB_TOKEN", SECRET)
    (tmp_path / "key").write_text(f"{SECRET}\n")
    file = tmp_path / "net.toml"
    file.write_text(
        'allow = ["api.github.com", "GET https://hub.test/v1/*"]\nmax_requests = 7\nreplay = "tape.json"\n'
        '[secrets.GITHUB_TOKEN]\nhosts = ["api.github.com"]\n'
        '[secrets.KEY]\nfile = "key"\nhosts = ["hub.test"]\nheaders = ["x-api-key"]\n'
    )
    network = Network.read(str(file))
    assert network.max_requests == 7
    assert network.secrets["GITHUB_TOKEN"].value == SECRET
    assert network.secrets["KEY"] == Secret(SECRET, ["hub.test"], ["x-api-key"])
    assert network.replay == str(tmp_path / "tape.json") or network.replay == tmp_path / "tape.json"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("allow = [", "Invalid|invalid|Unclosed|expected"),
        ("alow = []", "there is no alow"),
        (f'[secrets.A]\nvalue = "{SECRET}"\nhosts = ["a.test"]', "no value stands in this file"),
        ('[secrets.A]\nhosts = ["a.test"]', "the environment variable A is not set"),
        ('[secrets.A]\nfile = "none"\nhosts = ["a.test"]', "none"),
        ('[secrets.A]\nenv = "B"\nfile = "none"', "not from both"),
        ("on_request = 3", "only be given in Python"),
        ("secrets = 3", "secrets are tables"),
        ("allow = [3]", "allow: int is no string"),
    ],
)
def test_a_wrong_file_is_refused_by_name(text: str, words: str, tmp_path: Path) -> None:
    file = tmp_path / "net.toml"
    file.write_text(text)
    with pytest.raises(InvalidNetwork, match=words) as caught:
        Network.from_file(file)
    assert "net.toml" in str(caught.value)
    assert SECRET not in str(caught.value)


def test_a_file_that_is_none_or_too_large_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidNetwork, match=r"missing\.toml"):
        Network.read(str(tmp_path / "missing.toml"))
    (tmp_path / "big.toml").write_bytes(b"#" * (1 << 20) + b"##")
    with pytest.raises(InvalidNetwork, match="larger than"):
        Network.from_file(tmp_path / "big.toml")
