"""Addresses that are never connected to, whatever name led there.

`ipaddress.is_global` alone is no answer: it is true of multicast, NAT64, 6to4 and others that lead into a private
network. So each range is listed here (IANA's registries of special-purpose addresses for IPv4 and IPv6, RFC 6890); an
IPv4 address that is mapped into IPv6 is judged as what it is, and other forms in which one holds another are refused.
"""

from __future__ import annotations

from functools import cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Address = IPv4Address | IPv6Address

_PRIVATE = {
    "10.0.0.0/8": "of a private network",
    "172.16.0.0/12": "of a private network",
    "192.168.0.0/16": "of a private network",
    "fc00::/7": "of a private network",
    "127.0.0.0/8": "of this machine",
    "::1/128": "of this machine",
    "169.254.0.0/16": "of this link",
    "fe80::/10": "of this link",
    "100.64.0.0/10": "shared behind a carrier's NAT",
    "fec0::/10": "of a site",
}
"""Connected to with ``private=True``."""

_NEVER = {
    "0.0.0.0/8": "of this network",
    "192.0.0.0/24": "of protocols",
    "192.0.2.0/24": "of documentation",
    "198.51.100.0/24": "of documentation",
    "203.0.113.0/24": "of documentation",
    "192.88.99.0/24": "of relays",
    "198.18.0.0/15": "of benchmarks",
    "224.0.0.0/4": "of a group",
    "240.0.0.0/4": "reserved",
    "::/128": "unspecified",
    "::/96": "an IPv4 address in IPv6",
    "::ffff:0:0:0/96": "an IPv4 address in IPv6",
    "64:ff9b::/96": "an IPv4 address in IPv6",
    "64:ff9b:1::/48": "an IPv4 address in IPv6",
    "100::/64": "that leads nowhere",
    "100:0:0:1::/64": "that leads nowhere",
    "2001::/23": "of protocols",
    "2001:db8::/32": "of documentation",
    "2002::/16": "an IPv4 address in IPv6",
    "3fff::/20": "of documentation",
    "5f00::/16": "of segment routing",
    "ff00::/8": "of a group",
}

_METADATA = frozenset(
    map(
        ip_address,
        [
            "169.254.169.254",  # most clouds
            "169.254.170.2",  # credentials of Amazon's containers
            "169.254.170.23",
            "169.254.0.23",  # Tencent
            "100.100.100.200",  # Alibaba
            "168.63.129.16",  # Azure's host
            "192.0.0.192",  # Oracle
            "fd00:ec2::254",  # Amazon
            "fd00:ec2::23",
            "fd20:ce::254",  # Google
        ],
    )
)
"""Services that give a machine's credentials to whoever asks from it."""


def forbidden(address: str, private: bool = False, is_named: bool = False) -> str | None:
    """Why an address may not be connected to; None if it may.

    Args:
        address: an address that a name was resolved to.
        private: whether private networks, this machine and its links may be connected to.
        is_named: whether the policy names this very address and not a name that leads to it. Only so a metadata service
            is connected to, and only with ``private``.
    """
    try:
        found: Address = ip_address(address)
    except ValueError:
        return f"{address[:60]!r} is no address"
    if isinstance(found, IPv6Address) and found.scope_id is not None:
        found = IPv6Address(int(found))
    if isinstance(found, IPv6Address) and found.ipv4_mapped is not None:
        found = found.ipv4_mapped
    if found in _METADATA and not (private and is_named):
        return f"{address} is an address of a metadata service"
    words = _words(found, _PRIVATE)
    if found in _METADATA or words is not None:
        return None if private else f"{address} is an address {words}"
    words = _words(found, _NEVER)
    if words is None and not private and not found.is_global:
        words = "that is not public"
    return None if words is None else f"{address} is an address {words}"


def _words(address: Address, ranges: dict[str, str]) -> str | None:
    for text, words in ranges.items():
        if address in _network(text):
            return words
    return None


@cache
def _network(text: str) -> IPv4Network | IPv6Network:
    return ip_network(text)
