"""Bytes that are no artefact, truncated or damaged are refused."""

import pytest

from aslp_jax.artefact import ArtefactError, container
from aslp_jax.artefact.decoding import decode
from tests.artefact.networks import file_of, rewritten


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"{}", r"whose top level holds \[\]; expected"),
        (b"[]", "is no JSON object"),
        (b"", "cannot be parsed"),
        (b"\xff", "cannot be parsed"),
        (b"[" * 500_000, "cannot be parsed"),
        (b'{"a": 1, "a": 1}', "the same key twice"),
        (b'{"a": ' + b"9" * 5000 + b"}", "cannot be parsed"),
        (b" " * (2 << 20), "declares a header of 2097152 bytes, more than it can"),
    ],
)
def test_a_header_that_is_none_is_refused(text, words):
    with pytest.raises(ArtefactError, match=words):
        decode(rewritten(file_of("recipe"), text))


def test_what_inflates_to_more_or_less_is_refused():
    packed, deflated = container.deflate(bytes(1000))
    assert deflated and len(packed) < 20
    assert container.inflate(memoryview(packed), 1000) == bytes(1000)
    for stored, size in (
        (packed, 999),
        (packed, 1),
        (packed, 1001),
        (packed[:-1], 1000),
        (packed + b"\0", 1000),
        (b"", 1),
    ):
        with pytest.raises(ArtefactError, match="inflate"):
            container.inflate(memoryview(stored), size)
    assert container.deflate(b"abc") == (b"abc", False)
