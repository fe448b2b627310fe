"""Addresses that are never connected to, in every form in which one holds another."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wasm_sandbox.egress.addresses import forbidden

PRIVATE = [
    "10.0.0.1", "172.31.255.255", "192.168.1.1", "127.0.0.1", "127.255.255.254", "169.254.1.1", "100.64.0.1", "::1",
    "fe80::1", "fe80::1%lo", "fc00::1", "fdff::1", "fec0::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1",
]  # fmt: skip

NEVER = [
    "0.0.0.0", "0.1.2.3", "224.0.0.1", "239.255.255.250", "255.255.255.255", "240.0.0.1", "192.0.0.8", "192.0.2.1",
    "198.51.100.1", "203.0.113.1", "198.18.0.1", "198.19.255.255", "192.88.99.1", "::", "::7f00:1",
    "::ffff:0:127.0.0.1", "::ffff:224.0.0.1", "64:ff9b::7f00:1", "64:ff9b::808:808", "64:ff9b:1::7f00:1",
    "2002:7f00:1::",
    "2002:808:808::1", "2001::1", "2001:0:4136:e378:8000:63bf:3fff:fdd2", "2001:db8::1", "3fff::1", "100::1",
    "5f00::1", "ff02::1",
    "ff0e::1", "2001:20::1", "2001:2::1",
]  # fmt: skip

METADATA = [
    "169.254.169.254", "::ffff:169.254.169.254", "169.254.170.2", "100.100.100.200", "168.63.129.16", "192.0.0.192",
    "fd00:ec2::254", "fd00:0ec2:0::0254", "fd20:ce::254",
]  # fmt: skip

PUBLIC = [
    "1.1.1.1",
    "8.8.8.8",
    "93.184.216.34",
    "2606:4700::1111",
    "2a00:1450:4001::1",
    "::ffff:8.8.8.8",
    "100.128.0.1",
]


@pytest.mark.parametrize("address", PUBLIC)
def test_a_public_address_is_connected_to(address: str) -> None:
    assert forbidden(address) is None
    assert forbidden(address, private=True) is None


@pytest.mark.parametrize("address", PRIVATE)
def test_a_private_address_is_connected_to_only_if_that_is_allowed(address: str) -> None:
    assert address in str(forbidden(address))
    assert forbidden(address, private=True) is None


@pytest.mark.parametrize("address", NEVER)
def test_some_addresses_are_never_connected_to(address: str) -> None:
    assert address in str(forbidden(address))
    assert address in str(forbidden(address, private=True, is_named=True))


@pytest.mark.parametrize("address", METADATA)
def test_a_metadata_service_is_connected_to_only_if_it_is_named_itself(address: str) -> None:
    assert "metadata" in str(forbidden(address))
    assert "metadata" in str(forbidden(address, private=True))
    assert "metadata" in str(forbidden(address, is_named=True))
    assert forbidden(address, private=True, is_named=True) is None


FORMS = ["::ffff:0:0", "::", "64:ff9b::", "64:ff9b:1::", "64:ff9b:1:abcd::", "::ffff:0:0:0"]
INNER = ["10.0.0.0/8", "127.0.0.0/8", "192.168.0.0/16", "172.16.0.0/12", "169.254.0.0/16", "224.0.0.0/4", "0.0.0.0/8"]


@given(st.sampled_from(FORMS), st.sampled_from(INNER).flatmap(lambda text: st.ip_addresses(network=ip_network(text))))
def test_no_form_of_ipv6_hides_an_ipv4_address(form: str, inner: IPv4Address) -> None:
    assert forbidden(str(IPv6Address(int(IPv6Address(form)) | int(inner)))) is not None


@given(st.ip_addresses(v=4), st.integers(0, 2**80 - 1), st.integers(0, 2**64 - 1))
def test_tunnels_lead_nowhere(inner: IPv4Address, below: int, middle: int) -> None:
    assert forbidden(str(IPv6Address((0x2002 << 112) | int(inner) << 80 | below)), private=True) is not None
    teredo = (0x20010000 << 96) | middle << 32 | (int(inner) ^ 0xFFFFFFFF)
    assert forbidden(str(IPv6Address(teredo)), private=True) is not None


@given(st.ip_addresses())
def test_what_is_not_global_is_not_connected_to(address: IPv4Address | IPv6Address) -> None:
    if not address.is_global or address.is_multicast:
        assert forbidden(str(address)) is not None


@pytest.mark.parametrize("address", ["", "localhost", "1.2.3", "0x7f.1", "127.0.0.1/8", "[::1]", "x" * 1000])
def test_what_is_no_address_is_refused(address: str) -> None:
    assert "is no address" in str(forbidden(address, private=True))
