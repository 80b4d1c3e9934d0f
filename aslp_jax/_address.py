"""Addresses `HOST:PORT`, as `--cluster` and `--coordinator` take them."""

import ipaddress

__all__ = ["split_address"]


def split_address(address: str) -> tuple[str, int]:
    """Returns host and port of an address.

    Args:
      address: `HOST:PORT`; an IPv6 address as host stands in brackets.

    Returns:
      Host without brackets, and port from 1 to 65535.

    Raises:
      ValueError: the address is none; the message goes on where the address ends.
    """
    host, _, port = address.rpartition(":")
    brackets = host.startswith("[") and host.endswith("]")
    if brackets:
        host = host[1:-1]
    decimal = port.isascii() and port.isdecimal() and len(port) <= 5
    named = _is_ipv6(host) if brackets else host and ":" not in host
    if not (named and decimal):
        raise ValueError(
            "is no HOST:PORT; an IPv6 address stands in brackets, as in [::1]:6379"
        )
    if not 1 <= int(port) <= 65535:
        raise ValueError("has no port from 1 to 65535")
    if brackets and ipaddress.IPv6Address(host).is_link_local and "%" not in host:
        raise ValueError(
            f"is an address of one link; name the interface, as in [{host}%eth0]:{port}"
        )
    return host, int(port)


def _is_ipv6(host: str) -> bool:
    try:
        ipaddress.IPv6Address(host)
    except ValueError:
        return False
    return True
