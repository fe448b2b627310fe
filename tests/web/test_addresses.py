"""Addresses: which only this machine reaches, and listening at one, written with brackets or without."""

from __future__ import annotations

import socket

import pytest

from wasm_sandbox import HostError
from wasm_sandbox.web import address_of, is_loopback, listen


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "[::1]", "localhost"])
def test_only_this_machine_reaches_an_address_of_its_own(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize(
    "host",
    ["0.0.0.0", "::", "[::]", "10.0.0.1", "example.com", "localhost.example.com", "", "[]", "[127.0.0.1", "::1]"],
)
def test_all_others_are_reached_by_others(host: str) -> None:
    assert not is_loopback(host)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "[::1]"])
def test_a_server_listens_where_it_is_told_and_says_where(host: str) -> None:
    try:
        listening = listen(host, 0)
    except HostError:
        if ":" in host:
            pytest.skip("this machine has no IPv6")
        raise
    with listening:
        address = address_of(listening)
        assert address.startswith("http://[::1]:" if ":" in host else "http://")
        name, _, port = address.removeprefix("http://").rpartition(":")
        with socket.create_connection((name.strip("[]"), int(port)), timeout=5):
            pass


@pytest.mark.parametrize("host", ["no.such.host.invalid", "192.0.2.1", "x" * 300, "a..b", "\0"])
def test_where_it_cannot_listen_it_says_so(host: str) -> None:
    with pytest.raises(HostError, match="name another --host or --port"):
        listen(host, 0)


def test_a_port_that_is_taken_is_named() -> None:
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(HostError, match=f"127.0.0.1 port {port} cannot be listened at"):
            listen("127.0.0.1", port)
