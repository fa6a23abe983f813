"""Meeting tokens of Daily.co, made from what a decision allows.

Source: https://docs.daily.co/reference/rest-api/meeting-tokens/create-meeting-token
"""

from __future__ import annotations

import datetime as dt
from typing import Any

from authz.client.arguments import as_instant, as_result, as_text
from authz.client.combined import SessionAccess
from authz.domain.errors import malformed
from authz.domain.instants import US_PER_S, Instant, from_datetime

_SENDS = ["video", "audio", "screenVideo", "screenAudio"]


def meeting_token_properties(
    access: SessionAccess,
    *,
    room: str,
    now: dt.datetime | Instant | None = None,
    max_lifetime: dt.timedelta,
    user_name: str = "",
) -> dict[str, Any]:
    """The `properties` of a token with which `access.subject` may enter the room of the session.

    The token ends, and Daily then ejects, at the earliest of the end of the session, the time until which the
    decision is valid, and `max_lifetime` after `now`: Daily cannot take a token back, so this is how long a
    revocation can last that nobody ejects for. Make another one before it ends. `now` is the
    time of this machine unless it is given. `user_name`, if given, is personal data that Daily keeps.

    Raises `InvalidArgumentError` without the right to join, for an access that is over, for an empty room,
    whose token would open every room, and for an argument of another type or a `now` without a time zone.
    """
    access = as_result(access, SessionAccess, field="access", call="authorize_session")
    if not access:
        who = f"{access.subject}, who may not join {access.session_id}"
        raise malformed("access", f"is that of {who}: {access.join.reason}")
    if not as_text(room, field="room"):
        raise malformed("room", "is empty; a token without a room opens every room")
    properties: dict[str, Any] = {
        "room_name": room,
        "user_id": access.subject.partition(":")[2],
        "exp": _end_of(access, now, max_lifetime),
        "eject_at_token_exp": True,
        # All rights at once, also those that were not asked about.
        "is_owner": False,
        "enable_screenshare": access.may_present,
        "permissions": _permissions(access),
    }
    if access.may_record:
        properties["enable_recording"] = "cloud"
    if as_text(user_name, field="user_name"):
        properties["user_name"] = user_name
    return properties


def _permissions(access: SessionAccess) -> dict[str, Any]:
    return {
        "canSend": _SENDS if access.may_present else False,
        "canAdmin": ["participants"] if access.may_moderate else False,
    }


def _end_of(access: SessionAccess, now: dt.datetime | Instant | None, max_lifetime: dt.timedelta) -> int:
    now_us = as_instant(dt.datetime.now(dt.UTC) if now is None else now, field="now")
    if not isinstance(max_lifetime, dt.timedelta) or max_lifetime < dt.timedelta(seconds=1):
        raise malformed("max_lifetime", f"is `{max_lifetime!r}`; give a timedelta of a second or more")
    ends = [from_datetime(each) for each in (access.ends_at, access.valid_until) if each]
    end_s = min([now_us + max_lifetime // dt.timedelta(microseconds=1), *ends]) // US_PER_S
    if end_s * US_PER_S <= now_us:
        raise malformed(
            "access", f"is that of {access.subject} to {access.session_id}, which is over; ask again"
        )
    return end_s
