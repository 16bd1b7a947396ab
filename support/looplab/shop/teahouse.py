"""A service as you might have it at work: it answers, its tests are green, and it has six faults.

Lesson 14 x-rays it. ``looplab.shop.teahouse:app`` is the app, ``create_app`` makes further ones.
It reads its settings from the environment when it starts, keeps its teas in SQLite, and asks a
supplier over HTTP, ``GET /stock/{sku}``.
"""

import asyncio
import os
import tempfile
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import httpx
from fastapi import APIRouter, Depends, FastAPI, Header, HTTPException, Request
from fastapi.responses import JSONResponse
from sqlalchemy import URL, text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

TEAS = [f"tea-{number}" for number in range(12)]
TOKEN = "let-me-in"

router = APIRouter()


@dataclass(frozen=True)
class Settings:
    """What the environment says: the supplier's address, and times in seconds."""

    supplier: str
    patience: float  # for an answer of the supplier
    printing: float  # of a label or an invoice

    @classmethod
    def from_environment(cls) -> "Settings":
        """Return the settings. Raises RuntimeError where the supplier's address is not set."""
        if "TEAHOUSE_SUPPLIER" not in os.environ:
            raise RuntimeError("TEAHOUSE_SUPPLIER is not set; it is the supplier's address")
        return cls(
            supplier=os.environ["TEAHOUSE_SUPPLIER"],
            patience=float(os.environ.get("TEAHOUSE_PATIENCE", "0.4")),
            printing=float(os.environ.get("TEAHOUSE_PRINTING", "0.08")),
        )


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
    """Open the database and the client that requests share; close both in the end."""
    settings = Settings.from_environment()
    with tempfile.TemporaryDirectory(prefix="teahouse-") as folder:
        url = URL.create("sqlite+aiosqlite", database=str(Path(folder) / "teas.sqlite3"))
        engine = create_async_engine(url, pool_size=2, max_overflow=0)
        limits = httpx.Limits(max_connections=None)
        client = httpx.AsyncClient(
            base_url=settings.supplier, timeout=settings.patience, limits=limits
        )
        async with engine.begin() as connection:
            await connection.execute(text("CREATE TABLE teas (sku TEXT, name TEXT)"))
            rows = [{"sku": sku, "name": sku.title()} for sku in TEAS]
            await connection.execute(text("INSERT INTO teas VALUES (:sku, :name)"), rows)
        app.state.settings, app.state.engine, app.state.client = settings, engine, client
        app.state.visits = 0
        try:
            yield
        finally:
            await client.aclose()
            await engine.dispose()


async def get_settings(request: Request) -> Settings:
    return request.app.state.settings


async def get_engine(request: Request) -> AsyncEngine:
    return request.app.state.engine


async def get_client(request: Request) -> httpx.AsyncClient:
    return request.app.state.client


async def signed_in(authorization: Annotated[str, Header()] = "") -> None:
    """Let nobody in who does not send the token."""
    if authorization != f"Bearer {TOKEN}":
        raise HTTPException(401, "who are you?")


Config = Annotated[Settings, Depends(get_settings)]
Engine = Annotated[AsyncEngine, Depends(get_engine)]
Client = Annotated[httpx.AsyncClient, Depends(get_client)]


def print_out(config: Settings, what: str) -> dict[str, str]:
    """Do as a printer's driver does, which knows nothing of asyncio."""
    time.sleep(config.printing)
    return {"printed": what}


async def stock_of(client: httpx.AsyncClient, sku: str, **options: Any) -> int:
    answer = await client.get(f"/stock/{sku}", **options)
    return answer.json()["available"]


async def name_of(connection: Any, sku: str) -> str | None:
    return await connection.scalar(text("SELECT name FROM teas WHERE sku = :sku"), {"sku": sku})


# ---------------------------------------------------------------- what it answers


@router.get("/teas")
async def teas(engine: Engine) -> list[str]:
    async with engine.connect() as connection:
        return list(await connection.scalars(text("SELECT name FROM teas")))


@router.get("/label/{sku}", dependencies=[Depends(signed_in)])
async def label(sku: str, config: Config) -> dict[str, str]:
    return print_out(config, f"label of {sku}")


@router.get("/invoice/{sku}")
def invoice(sku: str, config: Config) -> dict[str, str]:
    return print_out(config, f"invoice for {sku}")


@router.get("/stock/{sku}")
async def stock(sku: str, config: Config) -> int:
    async with httpx.AsyncClient(base_url=config.supplier, timeout=config.patience) as client:
        return await stock_of(client, sku)


@router.get("/offer/{sku}")
async def offer(sku: str, engine: Engine, client: Client) -> dict[str, Any]:
    async with engine.connect() as connection:
        name = await name_of(connection, sku)
    first = await stock_of(client, sku)
    second = await stock_of(client, f"{sku}-large")
    return {"name": name, "available": first + second}


@router.get("/parcel/{sku}")
async def parcel(sku: str, engine: Engine, client: Client) -> dict[str, Any]:
    async with engine.connect() as connection:
        name = await name_of(connection, sku)
        available = await stock_of(client, sku)
    return {"name": name, "fits": available < 100}


@router.get("/delivery/{sku}")
async def delivery(sku: str, client: Client) -> dict[str, bool]:
    return {"today": await stock_of(client, sku, timeout=None) > 0}


@router.get("/prices")
async def prices(client: Client) -> dict[str, int]:
    amounts = await asyncio.gather(*[stock_of(client, sku) for sku in TEAS])
    return dict(zip(TEAS, amounts, strict=True))


@router.get("/visit")
async def visit(request: Request) -> str:
    asyncio.create_task(count_visit(request.app))  # noqa: RUF006 - one of the six
    return "welcome"


async def count_visit(app: FastAPI) -> None:
    await asyncio.sleep(30)  # many visits are counted in one go
    app.state.visits += 1


# ---------------------------------------------------------------- the app


async def too_late(request: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"detail": "the supplier does not answer"}, 504)


def create_app() -> FastAPI:
    """Return a teahouse that has not been started."""
    app = FastAPI(title="Teahouse", lifespan=lifespan)
    app.include_router(router)
    app.add_exception_handler(httpx.TimeoutException, too_late)
    return app


app = create_app()
