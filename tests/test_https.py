"""Addresses that are slow, silent, endless, elsewhere or gone, of which none holds up its caller."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from io import BufferedIOBase
from pathlib import Path

import pytest

from authz import https
from tests.https import Address, https_address

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"transfer-encoding: chunked\r\n\r\n"
LONG = b"a" * 1000
"""More bytes than a drip sends before the timeout. Who waits for all of them has an answer."""


def drip(answer: bytes, file: BufferedIOBase) -> None:
    for byte in answer:
        file.write(bytes((byte,)))
        time.sleep(0.01)


DRIPS = {
    "in the header": OK + b"x: " + LONG + b"\r\n\r\n",
    "of headers": OK + b"x: y\r\n" * 200 + b"\r\n",
    "before the answer": b"HTTP/1.1 100 Continue\r\n\r\n" * 40 + OK + b"\r\n",
}
BODY_DRIPS = {
    "of known length": OK + b"content-length: 1000\r\n\r\n" + LONG,
    "of unknown length": OK + b"\r\n" + LONG,
    "in chunks": CHUNKED + b"1\r\na\r\n" * 200 + b"0\r\n\r\n",
}
SENDERS = {"fetch": https.fetch, "post": partial(https.post, text="note")}


@pytest.fixture
def address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Address]:
    with https_address(tmp_path, monkeypatch) as made:
        yield made


@pytest.fixture
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("authz.https._TIMEOUT_S", 0.3)


def refusal(send: Callable[[str], object], url: str) -> str:
    with pytest.raises(ConnectionError) as caught:
        send(url)
    message = str(caught.value)
    assert url in message
    return message


@pytest.mark.usefixtures("_short")
@pytest.mark.parametrize("answer", DRIPS.values(), ids=DRIPS)
@pytest.mark.parametrize("send", SENDERS.values(), ids=SENDERS)
def test_an_answer_that_comes_byte_by_byte_is_not_waited_for(
    address: Address, send: Callable[[str], object], answer: bytes
) -> None:
    address.answer = partial(drip, answer)
    assert "no whole answer within 0.3 s" in refusal(send, address.url)


@pytest.mark.usefixtures("_short")
@pytest.mark.parametrize("answer", BODY_DRIPS.values(), ids=BODY_DRIPS)
def test_a_body_that_comes_byte_by_byte_is_not_waited_for(address: Address, answer: bytes) -> None:
    address.answer = partial(drip, answer)
    assert "no whole answer within 0.3 s" in refusal(https.fetch, address.url)


@pytest.mark.usefixtures("_short")
@pytest.mark.parametrize("send", SENDERS.values(), ids=SENDERS)
def test_an_address_that_never_answers_is_not_waited_for(
    address: Address, send: Callable[[str], object]
) -> None:
    ended = threading.Event()
    address.answer = lambda _: ended.wait()
    try:
        assert "no whole answer within 0.3 s" in refusal(send, address.url)
    finally:
        ended.set()
    with socket.create_server(("127.0.0.1", 0)) as silent:  # not even a TLS handshake
        url = f"https://127.0.0.1:{silent.getsockname()[1]}/"
        assert "no whole answer within 0.3 s" in refusal(send, url)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"hello\n",
        OK + b"content-length: 10\r\n\r\nabc",
        CHUNKED + b"a\r\nabc",
    ],
)
def test_an_answer_that_ends_early_is_none(address: Address, answer: bytes) -> None:
    address.answer = lambda file: file.write(answer)
    refusal(https.fetch, address.url)


def test_an_answer_of_more_than_a_mebibyte_is_not_read(address: Address) -> None:
    address.content = b"x" * (1 << 20)
    assert https.fetch(address.url) == address.content
    address.content += b"x"
    assert "more than 1048576 bytes" in refusal(https.fetch, address.url)


@pytest.mark.parametrize("send", SENDERS.values(), ids=SENDERS)
def test_a_redirect_is_refused_and_named(address: Address, send: Callable[[str], object]) -> None:
    address.status, address.location = 302, f"{address.url}elsewhere"
    assert f"redirects (302) to `{address.location}`" in refusal(send, address.url)
    assert address.gets <= 1
    assert address.posted == []


@pytest.mark.parametrize("send", SENDERS.values(), ids=SENDERS)
def test_an_error_of_the_address_and_a_name_that_is_none_are_refusals(
    address: Address, send: Callable[[str], object]
) -> None:
    address.status = 503
    assert "answered with status 503" in refusal(send, address.url)
    assert "not reached" in refusal(send, "https://nowhere.invalid/")


@pytest.mark.parametrize("send", SENDERS.values(), ids=SENDERS)
def test_a_certificate_that_is_refused_is_told_with_the_setting_that_names_an_authority(
    address: Address, send: Callable[[str], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    told = refusal(send, address.url.replace("localhost", "127.0.0.1"))
    assert "its certificate is refused: IP address mismatch" in told
    monkeypatch.delenv("SSL_CERT_FILE")
    told = refusal(send, address.url)
    assert "its certificate is refused: self-signed certificate" in told
    assert "set SSL_CERT_FILE" in told
    assert address.posted == []


def test_what_is_posted_arrives(address: Address) -> None:
    https.post(address.url, "note \u2014 1\n")
    assert address.posted == ["note \u2014 1\n"]
