"""The guards for FastAPI and Starlette before a real service: closed unless the check is allowed."""

from __future__ import annotations

import importlib.util
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import PlainTextResponse, RedirectResponse
from starlette.routing import Mount, Route

from authz.client import AsyncClient, CallError
from authz.client.web import RequireMiddleware, require
from authz.domain.entities import Course, CourseState, Membership, Resource
from authz.domain.errors import InvalidArgumentError
from authz.domain.ids import course_scope, parse_subject
from authz.domain.mutations import Mutation, Operation
from tests.service import Service
from tests.serving import find_free_port

if TYPE_CHECKING:  # it takes a quarter of the collection of all tests, in each process that runs some
    from fastapi import FastAPI

EXAMPLES = Path(__file__).parents[2] / "examples"
ALGEBRA, MAYA = course_scope("algebra"), parse_subject("user:maya")
CAMPUS = (
    Course(id="algebra", state=CourseState.ACTIVE),
    Course(id="poetry", state=CourseState.ACTIVE),
    Membership(subject=MAYA, scope=ALGEBRA, role="student"),
    Resource(type="notebook", id="nb-7", scope=ALGEBRA, owner=MAYA),
    Resource(type="material", id="m-1", scope=ALGEBRA, published=True),
)


def who_asks(connection: HTTPConnection) -> str:
    """The header, which a test may trust."""
    return f"user:{connection.headers['x-user']}"


async def read_notebook(request: Request) -> PlainTextResponse:
    """Served."""
    return PlainTextResponse("the proof")


def middleware(*args: Any, **values: Any) -> list[Middleware]:
    return [Middleware(RequireMiddleware, *args, subject=who_asks, **values)]


def starlette_app() -> Starlette:
    """A route to read and one to create, guarded."""
    guard = middleware("read", "notebook:{notebook_id}", course="{course_id}")
    path = "/{course_id}/notebooks/{notebook_id}"
    new = Route(
        "/{course_id}/new", read_notebook, middleware=middleware("create", "notebook", course="{course_id}")
    )
    return Starlette(routes=[Route(path, read_notebook, middleware=guard), new])


def fastapi_app() -> FastAPI:
    """The same routes."""
    from fastapi import FastAPI

    app = FastAPI()
    guard = require("read", "notebook:{notebook_id}", subject=who_asks, course="{course_id}")

    @app.get("/{course_id}/notebooks/{notebook_id}", dependencies=[guard])
    async def read(notebook_id: str) -> str:
        return "the proof"

    new = require("create", "notebook", subject=who_asks, course="{course_id}")
    app.get("/{course_id}/new", dependencies=[new])(lambda: "a new one")

    return app


@asynccontextmanager
async def browsing(app: Any, address: str) -> AsyncIterator[httpx.AsyncClient]:
    """A browser of the application, whose client is of the service at the address."""
    async with (
        AsyncClient(address) as app.state.authz,
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://app") as browser,
    ):
        yield browser


@pytest.fixture(params=[starlette_app, fastapi_app])
async def browser(request: pytest.FixtureRequest, service: Service) -> AsyncIterator[httpx.AsyncClient]:
    """A browser of each kind of application."""
    async with AsyncClient(service.address) as client:
        await client.write([Mutation(Operation.CREATE, entity) for entity in CAMPUS])
    async with browsing(request.param(), service.address) as browser:
        yield browser


async def get(browser: httpx.AsyncClient, path: str, user: str = "maya") -> httpx.Response:
    return await browser.get(path, headers={"x-user": user})


async def test_the_guard_and_the_handler_get_the_same_converted_id(service: Service) -> None:
    from fastapi import FastAPI

    app, served = FastAPI(), []
    guard = require("read", "notebook:{notebook_id}", subject=who_asks)

    @app.get("/notebooks/{notebook_id:int}", dependencies=[guard])
    async def read(notebook_id: int) -> None:
        served.append(notebook_id)

    notebook = Resource(type="notebook", id="7", scope=ALGEBRA, owner=MAYA)
    async with AsyncClient(service.address) as client:
        await client.write([Mutation(Operation.CREATE, entity) for entity in (*CAMPUS, notebook)])
    async with browsing(app, service.address) as browser:
        assert (await get(browser, "/notebooks/07")).status_code == 200
        assert (await get(browser, "/notebooks/08")).status_code == 403
    assert served == [7]


async def test_a_route_is_served_only_if_the_check_is_allowed(browser: httpx.AsyncClient) -> None:
    allowed = await get(browser, "/algebra/notebooks/nb-7")
    assert (allowed.status_code, allowed.text.strip('"')) == (200, "the proof")
    for path, user in (
        ("/algebra/notebooks/nb-7", "omar"),
        ("/poetry/notebooks/nb-7", "maya"),  # it is in another course
        ("/algebra/notebooks/nb-8", "maya"),
    ):
        refused = await get(browser, path, user)
        assert refused.status_code == 403
        # The answer does not tell whether there is such a notebook.
        assert refused.json()["detail"].split(" (decision ")[0] == "not allowed"
    for path in ("/algebra/notebooks/nb 7", "/alg ebra/notebooks/nb-7"):
        assert (await get(browser, path)).status_code == 404


async def test_a_guard_for_create_asks_about_the_type_in_the_course(browser: httpx.AsyncClient) -> None:
    assert (await get(browser, "/algebra/new")).status_code == 200
    assert (await get(browser, "/algebra/new", "omar")).status_code == 403
    assert (await get(browser, "/poetry/new")).status_code == 403


def starlette_below(**within: str) -> Starlette:
    """A route whose first part may be empty, guarded within a course or a session."""
    guard = middleware("read", "notebook:{notebook_id}", **within)
    return Starlette(routes=[Route("/{place:path}/in/{notebook_id}", read_notebook, middleware=guard)])


def fastapi_below(**within: str) -> FastAPI:
    """The same route."""
    from fastapi import FastAPI

    app = FastAPI()
    guard = require("read", "notebook:{notebook_id}", subject=who_asks, **within)

    @app.get("/{place:path}/in/{notebook_id}", dependencies=[guard])
    async def read(notebook_id: str) -> str:
        return "the proof"

    return app


@pytest.mark.parametrize("make", [starlette_below, fastapi_below])
@pytest.mark.parametrize("name", ["course", "session"])
async def test_an_empty_part_of_the_path_does_not_lift_the_constraint(
    sqlite_service: Service, make: Any, name: str
) -> None:
    async with AsyncClient(sqlite_service.address) as client:
        await client.write([Mutation(Operation.CREATE, entity) for entity in CAMPUS])
    async with browsing(make(**{name: "{place}"}), sqlite_service.address) as browser:
        assert (await get(browser, "http://app//in/nb-7")).status_code == 404
        assert (await get(browser, "/poetry/in/nb-7")).status_code == 403


@pytest.mark.parametrize("make", [starlette_app, fastapi_app])
async def test_nothing_is_served_while_nobody_knows_the_answer(make: Any) -> None:
    async with browsing(make(), "127.0.0.1:1") as browser:
        refused = await get(browser, "/algebra/notebooks/nb-7")
    assert (refused.status_code, "cannot be decided now" in refused.text) == (503, True)


async def test_a_mistake_in_the_application_serves_nothing_and_says_what_it_is(
    sqlite_service: Service,
) -> None:
    guards = {
        "raed": middleware("raed", "notebook:{notebook_id}"),
        "part": middleware("read", "notebook:{notebook}"),
        "who": [Middleware(RequireMiddleware, "read", "notebook:{notebook_id}", subject=lambda _: "maya")],
    }
    routes = [
        Route(f"/{name}/{{notebook_id}}", read_notebook, middleware=each) for name, each in guards.items()
    ]
    app = Starlette(routes=routes)
    async with browsing(app, sqlite_service.address) as browser:
        with pytest.raises(CallError, match="did you mean `read`"):
            await get(browser, "/raed/nb-7")
        with pytest.raises(ValueError, match="needs `notebook`, and the path has notebook_id"):
            await get(browser, "/part/nb-7")
        with pytest.raises(InvalidArgumentError, match="write it like `user:maya`"):
            await get(browser, "/who/nb-7")
        del app.state.authz
        with pytest.raises(RuntimeError, match="set it to an AsyncClient"):
            await get(browser, "/raed/nb-7")
    with pytest.raises(InvalidArgumentError, match="note book"):
        require("read", "note book:{notebook_id}", subject=who_asks)
    for empty in ({"course": ""}, {"session": ""}):
        with pytest.raises(InvalidArgumentError, match="_id is empty; give the id, or leave it out"):
            require("read", "notebook:{notebook_id}", subject=who_asks, **empty)


async def test_a_mounted_app_without_a_client_says_where_to_set_it(sqlite_service: Service) -> None:
    inner = starlette_app()
    app = Starlette(routes=[Mount("/mounted", app=inner)])
    async with browsing(app, sqlite_service.address) as browser:
        await app.state.authz.write([Mutation(Operation.CREATE, entity) for entity in CAMPUS])
        with pytest.raises(RuntimeError, match=r"set its state\.authz in that of the app around it"):
            await get(browser, "/mounted/algebra/notebooks/nb-7")
        inner.state.authz = app.state.authz
        told = [await get(browser, "/mounted/algebra/notebooks/nb-7", user) for user in ("maya", "omar")]
    assert [answer.status_code for answer in told] == [200, 403]


def log_in(connection: HTTPConnection) -> str:
    """As an application does that knows nobody."""
    raise HTTPException(401, "log in first", {"WWW-Authenticate": "Bearer"})


async def test_an_application_refuses_whom_it_does_not_know_as_it_chooses(sqlite_service: Service) -> None:
    guard = [Middleware(RequireMiddleware, "read", "course:algebra", subject=log_in)]
    route = Route("/", read_notebook, middleware=guard)
    redirect = {HTTPException: lambda request, error: RedirectResponse("/login")}
    for app, status in (
        (Starlette(routes=[Route("/", read_notebook)], middleware=guard), 401),
        (Starlette(routes=[route]), 401),
        (Starlette(routes=[route], exception_handlers=redirect), 307),
    ):
        async with browsing(app, sqlite_service.address) as browser:
            refused = await browser.get("/")
        assert refused.status_code == status
        assert status != 401 or (refused.headers["www-authenticate"], "log in first" in refused.text) == (
            "Bearer",
            True,
        )


async def refused_websocket(address: str, id_: str, extensions: dict[str, Any] | None) -> list[Any]:
    """What a guard sends to a server with these extensions about the WebSocket of somebody with this id."""
    sent: list[Any] = []
    app = starlette_app()
    guarded = RequireMiddleware(app, "read", "notebook:nb-7", subject=who_asks)

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    async with AsyncClient(address, timeout_s=1) as app.state.authz:
        scope = {"type": "websocket", "headers": [(b"x-user", id_.encode())], "app": app, "path": "/"}
        await guarded(scope | {"extensions": extensions}, receive, send)
    return sent


@pytest.mark.parametrize("extensions", [None, {}])
async def test_a_websocket_is_closed_before_it_is_accepted(
    sqlite_service: Service, extensions: dict[str, Any] | None
) -> None:
    sent = await refused_websocket(sqlite_service.address, "omar", extensions)
    assert [message["type"] for message in sent] == ["websocket.close"]


async def test_who_opens_a_websocket_learns_whether_access_can_be_decided(sqlite_service: Service) -> None:
    extensions: dict[str, Any] = {"websocket.http.response": {}}
    for address, status in ((sqlite_service.address, 403), (f"127.0.0.1:{find_free_port()}", 503)):
        start, body = await refused_websocket(address, "omar", extensions)
        assert (start["type"], start["status"]) == ("websocket.http.response.start", status)
        assert body["type"] == "websocket.http.response.body"


@pytest.mark.parametrize("name", ["fastapi_app", "starlette_app"])
async def test_an_example_asks_before_it_serves(
    sqlite_service: Service, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("AUTHZ_ADDRESS", sqlite_service.address)
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    async with example.lifespan(example.app):
        await example.app.state.authz.write([Mutation(Operation.CREATE, entity) for entity in CAMPUS])
        transport = httpx.ASGITransport(example.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://app") as browser:
            answers = [await get(browser, "/materials/m-1", user) for user in ("maya", "omar")]
            unknown = await browser.get("/materials/m-1")
    assert [answer.status_code for answer in (*answers, unknown)] == [200, 403, 401]
