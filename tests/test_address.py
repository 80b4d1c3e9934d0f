"""Addresses `HOST:PORT`: hosts by name, by IPv4 and by IPv6, and what is none."""

import pytest

from aslp_jax._address import split_address


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("node1:6379", ("node1", 6379)),
        ("10.0.0.1:1", ("10.0.0.1", 1)),
        ("[::1]:65535", ("::1", 65535)),
        ("[2001:db8::7]:29500", ("2001:db8::7", 29500)),
        ("[fe80::1%eth0]:6379", ("fe80::1%eth0", 6379)),
    ],
)
def test_host_and_port_of_an_address(address, expected):
    assert split_address(address) == expected


@pytest.mark.parametrize(
    "address",
    [
        *("", "node1", ":6379", "node1:", "node1:x", "node1:-1", "node1:123456"),
        *(
            "[]:6379",
            "[node1]:6379",
            "[10.0.0.1]:6379",
            "a:b:1",
            "node1:\N{SUPERSCRIPT TWO}",
        ),
        # ::1:6379 may be an address of its own.
        *("::1", "::1:6379", "[::1]", "[::1:6379", "::1]:6379", "[[::1]]:6379"),
    ],
)
def test_what_is_no_address(address):
    with pytest.raises(ValueError, match=r"^is no HOST:PORT; an IPv6 .* \[::1\]:6379$"):
        split_address(address)


@pytest.mark.parametrize("address", ["node1:0", "[::1]:65536"])
def test_a_port_out_of_range(address):
    with pytest.raises(ValueError, match=r"^has no port from 1 to 65535$"):
        split_address(address)


def test_an_address_of_one_link_needs_its_interface():
    with pytest.raises(ValueError, match=r"as in \[fe80::1%eth0\]:6379$"):
        split_address("[fe80::1]:6379")
