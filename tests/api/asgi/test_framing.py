"""What arrives in any pieces is read as it was sent, or refused with what is wrong."""

from __future__ import annotations

import asyncio
import gzip
import zlib
from collections.abc import Sequence
from itertools import pairwise

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.api.asgi.framing import (
    Compressed,
    Event,
    StatusError,
    decompressed,
    messages,
    only_message,
    prefixed,
    timeout_s,
)

MAX_BYTES = 100


class Arriving:
    """The events of a request whose body comes in these pieces."""

    def __init__(self, *pieces: bytes, left: bool = False) -> None:
        last = len(pieces) - 1
        self._events: list[Event] = [
            {"type": "http.request", "body": piece, "more_body": left or number < last}
            for number, piece in enumerate(pieces)
        ]

    async def receive(self) -> Event:
        return self._events.pop(0) if self._events else {"type": "http.disconnect"}


async def read(*pieces: bytes, encoding: bytes | None = None, left: bool = False) -> list[bytes]:
    """The messages that come in these pieces; `left`: and then the client leaves."""
    receive = Arriving(*pieces, left=left).receive
    arriving = messages(receive, encoding, max_message_bytes=MAX_BYTES)
    return [decompressed(message) async for message in arriving]


async def refusal_of(*pieces: bytes, encoding: bytes | None = None) -> StatusError:
    with pytest.raises(StatusError) as caught:
        await read(*pieces, encoding=encoding)
    return caught.value


def cut(body: bytes, places: Sequence[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(body) + 1) for place in places), len(body)]
    return [body[start:end] for start, end in pairwise(edges)]


@given(
    sent=st.lists(st.binary(max_size=MAX_BYTES), max_size=4),
    places=st.lists(st.integers(min_value=0), max_size=6),
)
def test_messages_are_read_as_they_were_sent_wherever_they_are_cut(
    sent: list[bytes], places: list[int]
) -> None:
    pieces = cut(b"".join(map(prefixed, sent)), places)
    assert asyncio.run(read(*pieces)) == sent
    if len(sent) == 1:
        receive = Arriving(*pieces).receive
        assert asyncio.run(only_message(receive, None, max_message_bytes=MAX_BYTES)) == sent[0]


@pytest.mark.parametrize(
    ("body", "encoding", "code", "named"),
    [
        (prefixed(b"x" * 101), None, grpc.StatusCode.RESOURCE_EXHAUSTED, "101 bytes"),
        (b"\0\xff\xff\xff\xff", None, grpc.StatusCode.RESOURCE_EXHAUSTED, "4294967295 bytes"),
        (b"\1\0\0\0\1x", b"snappy", grpc.StatusCode.UNIMPLEMENTED, "`snappy`"),
        (b"\1\0\0\0\1x", None, grpc.StatusCode.UNIMPLEMENTED, "use gzip or none"),
        (b"\1\0\0\0\1x", b"gzip", grpc.StatusCode.INTERNAL, "cannot be read"),
        (b"\1\0\0\0\x03" + gzip.compress(b"x")[:3], b"gzip", grpc.StatusCode.INTERNAL, "cannot be read"),
        (b"\0\0\0\0\2x", None, grpc.StatusCode.INTERNAL, "ends within a message"),
        (b"\0\0", None, grpc.StatusCode.INTERNAL, "ends within a message"),
    ],
)
async def test_what_cannot_be_read_is_refused_with_its_cause(
    body: bytes, encoding: bytes | None, code: grpc.StatusCode, named: str
) -> None:
    error = await refusal_of(body, encoding=encoding)
    assert error.code is code
    assert named in error.message


async def test_a_small_message_that_unpacks_to_a_large_one_is_refused() -> None:
    packed = zlib.compress(bytes(10_000_000))
    error = await refusal_of(b"\1" + len(packed[:90]).to_bytes(4, "big") + packed[:90], encoding=b"deflate")
    assert error.code is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_no_more_is_decompressed_than_the_caller_may_send() -> None:
    packed = gzip.compress(bytes(MAX_BYTES))
    receive = Arriving(b"\1" + len(packed).to_bytes(4, "big") + packed).receive
    message = await only_message(receive, b"gzip", max_message_bytes=MAX_BYTES)
    assert isinstance(message, Compressed)
    assert message.decompressed(10) == bytes(11)
    assert message.decompressed(MAX_BYTES) == bytes(MAX_BYTES)


@pytest.mark.parametrize(
    ("sent", "named"), [([], "no message"), ([b"a", b"b"], "more than one"), ([b"", b""], "more than one")]
)
async def test_a_method_of_one_message_takes_no_other_number(sent: list[bytes], named: str) -> None:
    receive = Arriving(b"".join(map(prefixed, sent))).receive
    with pytest.raises(StatusError, match=named):
        await only_message(receive, None, max_message_bytes=MAX_BYTES)


async def test_a_second_message_is_refused_before_it_has_arrived() -> None:
    arriving = Arriving(prefixed(b"a"), b"\0", prefixed(b"b"), prefixed(b"c"))
    with pytest.raises(StatusError, match="more than one"):
        await only_message(arriving.receive, None, max_message_bytes=MAX_BYTES)
    assert (await arriving.receive())["body"] == prefixed(b"b")


async def test_a_client_that_leaves_within_its_request_cancels_the_call() -> None:
    with pytest.raises(asyncio.CancelledError):
        await read(b"\0\0\0\0\2x", left=True)


@pytest.mark.parametrize(
    ("stated", "seconds"), [(b"1S", 1.0), (b"1500m", 1.5), (b"2H", 7200.0), (b"99999999n", 0.099999999)]
)
def test_a_timeout_is_read(stated: bytes, seconds: float) -> None:
    assert timeout_s(stated) == pytest.approx(seconds)


@pytest.mark.parametrize("stated", [b"", b"S", b"1", b"-1S", b"1.5S", b"123456789S", b"1X", b"\xb2S"])
def test_a_timeout_that_cannot_be_read_is_no_call_without_a_deadline(stated: bytes) -> None:
    with pytest.raises(StatusError, match="grpc-timeout"):
        timeout_s(stated)


def test_binary_metadata_is_sent_in_base64_and_a_message_keeps_its_letters() -> None:
    told = dict(StatusError(grpc.StatusCode.ABORTED, "100 % é\n", [("d-bin", b"\0\xff")]).trailers())
    assert told == {b"grpc-status": b"10", b"grpc-message": b"100 %25 %C3%A9%0A", b"d-bin": b"AP8"}


@pytest.mark.parametrize("head", [b"\1\0\0\0\1", b"\0\0\1\0\1"], ids=["compressed", "large"])
async def test_a_large_request_is_not_received_before_its_caller_is_known(head: bytes) -> None:
    def refuse() -> None:
        raise StatusError(grpc.StatusCode.UNAUTHENTICATED, "who calls")

    arriving = Arriving(head, b"more", left=True)
    with pytest.raises(StatusError, match="who calls"):
        await only_message(arriving.receive, b"gzip", max_message_bytes=1 << 20, before_large=refuse)
    assert (await arriving.receive())["body"] == b"more"


async def test_anybody_may_send_a_small_request() -> None:
    def refuse() -> None:
        raise AssertionError

    receive = Arriving(b"\0", prefixed(b"x" * 99)[1:]).receive
    assert await only_message(receive, None, max_message_bytes=MAX_BYTES, before_large=refuse) == b"x" * 99
