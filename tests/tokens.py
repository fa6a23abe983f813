"""Tokens as tests need them: read without their key, and signed with the key of a database."""

from __future__ import annotations

import base64
import hashlib

import msgspec
from sqlalchemy import text

from authz.domain.tokens import KEY_BYTES, ConsistencyToken, TokenKeys
from authz.store import Store
from authz.store.database.engine import open_engine, read_transaction

_MAC_BYTES = 16


def state_of(token: str) -> ConsistencyToken:
    """The state that a token is of. Its signature is not verified."""
    raw = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
    return msgspec.msgpack.decode(raw[_MAC_BYTES:], type=ConsistencyToken)


def signed(url: str, state: ConsistencyToken) -> str:
    """A token of any state, as the service of a database would sign it."""
    engine = open_engine(url)
    with read_transaction(engine) as connection:
        key = connection.execute(text("SELECT token_key FROM counter")).scalar_one()
    engine.dispose()
    keys = TokenKeys()
    keys.add(state.database_id, bytes.fromhex(key))
    return keys.sign(state)


def moved(url: str, token: str, by: int) -> str:
    """The token of another revision of the same database, without time and nonce."""
    known = state_of(token)
    return signed(url, ConsistencyToken(known.database_id, known.revision + by))


def keys_in(store: Store) -> TokenKeys:
    """The key of an open database."""
    keys = TokenKeys()
    with store.directory.dump() as dump:
        keys.add(dump.state.database_id, dump.token_key)
    return keys


def keys_of(database_id: str) -> TokenKeys:
    """A key that no database has."""
    keys = TokenKeys()
    keys.add(database_id, bytes(KEY_BYTES))
    return keys


def made_up(state: ConsistencyToken) -> str:
    """A token of a state as somebody makes it who has no key."""
    return keys_of(state.database_id).sign(state)


def unsigned(state: ConsistencyToken) -> str:
    """A token as development versions made them, for anyone to make."""
    body = msgspec.msgpack.encode(state)
    check = hashlib.blake2b(b"consistency" + body, digest_size=4).digest()
    return base64.urlsafe_b64encode(check + body).decode().rstrip("=")
