"""A service of notebooks in FastAPI, which asks before it serves.

AUTHZ_ADDRESS=127.0.0.1:50051 uvicorn fastapi_app:app
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import FastAPI, Header, HTTPException

from authz.client import AsyncClient
from authz.client.web import require

NOTEBOOKS = {"nb-7": "the proof"}


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
    "/notebooks/{notebook_id}",
    dependencies=[require("read", "notebook:{notebook_id}", subject=who_asks)],
)
async def read_notebook(notebook_id: str) -> dict[str, str]:
    """The text of a notebook."""
    return {"text": NOTEBOOKS[notebook_id]}
