"""What a caller must have to ask a question."""

from __future__ import annotations

import msgspec
import pytest

from authz.access.permission import EVERY_RIGHT, CallerRights
from authz.api.call import Call, Method
from authz.api.methods import METHODS
from authz.api.permissions import (
    CHECK,
    CHECK_AI_PROCESS,
    require_to_ask,
    require_to_learn,
    require_to_learn_all,
)
from authz.domain.consistency import MINIMIZE_LATENCY
from authz.domain.errors import PermissionDeniedError
from tests.api.in_process import Request

METHOD = Method("/authz.v1.AuthorizationService/Check", *METHODS["Check"])
ABOUT_AI = "ai_process", "ai_response"
OTHERS = [("ai_process", ""), ("ai_process", "training"), ("read", "ai_response"), ("read", "")]


def call_of(*permissions: str) -> Call:
    rights = CallerRights(frozenset(permissions), "service:tutor")
    return Call(method=METHOD, transport=Request({}), consistency=MINIMIZE_LATENCY, rights=rights)


@pytest.mark.parametrize("question", OTHERS)
def test_an_ai_gateway_that_asks_anything_else_is_told_what_to_set(question: tuple[str, str]) -> None:
    with pytest.raises(PermissionDeniedError, match="`ai_process` with the purpose `ai_response`") as denied:
        require_to_ask(call_of(CHECK_AI_PROCESS), *question)
    assert denied.value.metadata["permission"] == CHECK
    require_to_ask(call_of(CHECK_AI_PROCESS), *ABOUT_AI)


@pytest.mark.parametrize("question", OTHERS)
def test_who_may_ask_nothing_is_told_the_permission(question: tuple[str, str]) -> None:
    with pytest.raises(PermissionDeniedError, match="none of its roles permits `check`"):
        require_to_ask(call_of(), *question)
    require_to_ask(call_of(CHECK), *question)
    require_to_ask(msgspec.structs.replace(call_of(), rights=EVERY_RIGHT), *question)


def test_who_may_ask_about_everything_else_is_told_the_permission() -> None:
    with pytest.raises(PermissionDeniedError, match="permits `check_ai_process`"):
        require_to_ask(call_of(CHECK), *ABOUT_AI)


def test_an_answer_about_an_ai_response_alone_takes_the_right_to_ask_about_it() -> None:
    for question in OTHERS:
        require_to_learn(call_of(), *question)
    require_to_learn_all(call_of(), "")
    require_to_learn(call_of(CHECK_AI_PROCESS), *ABOUT_AI)
    with pytest.raises(PermissionDeniedError, match="permits `check_ai_process`"):
        require_to_learn(call_of(CHECK), *ABOUT_AI)
    with pytest.raises(PermissionDeniedError, match="permits `check_ai_process`"):
        require_to_learn_all(call_of(CHECK), "ai_response")
