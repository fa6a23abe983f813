"""A service of materials in FastAPI, which asks before it serves.

pip install '.[web]' uvicorn
uvicorn --app-dir examples fastapi_app:app
curl -H 'x-user: maya' http://127.0.0.1:8000/materials/m-1    # {"text":"the proof"}
curl -H 'x-user: omar' http://127.0.0.1:8000/materials/m-1    # {"detail":"not allowed (decision …)"}

It asks the server at AUTHZ_ADDRESS, or 127.0.0.1:50051, about the materials of examples/materials.csv.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import FastAPI, Header, HTTPException

from authz.client import AsyncClient
from authz.client.web import require

MATERIALS = {"m-1": "the proof", "m-2": "a draft", "m-3": "a sonnet"}


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """One client for the application."""
    async with AsyncClient(os.environ.get("AUTHZ_ADDRESS", "127.0.0.1:50051")) as app.state.authz:
        yield


app = FastAPI(lifespan=lifespan)


def who_asks(x_user: Annotated[str | None, Header()] = None) -> str:
    """Replace this by your authentication: a header is what everybody can write."""
    if x_user is None:
        raise HTTPException(401, "log in first")
    return f"user:{x_user}"


@app.get(
    "/materials/{material_id}",
    dependencies=[require("read", "material:{material_id}", subject=who_asks)],
)
async def read_material(material_id: str) -> dict[str, str]:
    """The text of a material."""
    return {"text": MATERIALS[material_id]}
