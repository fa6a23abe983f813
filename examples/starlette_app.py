"""A service of materials in Starlette, which asks before it serves.

pip install '.[web]' uvicorn
uvicorn --app-dir examples starlette_app:app
curl -H 'x-user: maya' http://127.0.0.1:8000/materials/m-1    # the proof
curl -H 'x-user: omar' http://127.0.0.1:8000/materials/m-1    # {"detail":"not allowed (decision …)"}

It asks the server at AUTHZ_ADDRESS, or 127.0.0.1:50051, about the materials of examples/materials.csv.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from authz.client import AsyncClient
from authz.client.web import RequireMiddleware

MATERIALS = {"m-1": "the proof", "m-2": "a draft", "m-3": "a sonnet"}


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    """One client for the application."""
    async with AsyncClient(os.environ.get("AUTHZ_ADDRESS", "127.0.0.1:50051")) as app.state.authz:
        yield


def who_asks(connection: HTTPConnection) -> str:
    """Replace this by your authentication: a header is what everybody can write."""
    if "x-user" not in connection.headers:
        raise HTTPException(401, "log in first")
    return f"user:{connection.headers['x-user']}"


async def read_material(request: Request) -> PlainTextResponse:
    """The text of a material."""
    return PlainTextResponse(MATERIALS[request.path_params["material_id"]])


may_read = Middleware(RequireMiddleware, "read", "material:{material_id}", subject=who_asks)
app = Starlette(
    lifespan=lifespan,
    routes=[Route("/materials/{material_id}", read_material, middleware=[may_read])],
)
