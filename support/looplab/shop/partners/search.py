"""The search engine."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Unpack

from fastapi import Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

from looplab.shop.partners.partner import Knobs, Partner
from looplab.shop.seed import seeded_products


class Search(BaseModel):
    """The body of a `_search`."""

    query: dict[str, Any] = Field(default_factory=lambda: {"match_all": {}})
    size: int = Field(default=10, ge=0, le=10_000)
    from_: int = Field(default=0, ge=0, alias="from")


class SearchEngine(Partner):
    """Answers `GET` and `POST /{index}/_search` in the shape of Elasticsearch.

    It knows the queries `match`, `multi_match` and `match_all`, and `?q=`; `size` and `from` page.
    A document scores one for each word of the query that it holds. The subject of a fault is an
    index.

    Source: https://www.elastic.co/docs/api/doc/elasticsearch/operation/operation-search
    """

    def __init__(
        self,
        name: str = "search",
        *,
        documents: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
        **knobs: Unpack[Knobs],
    ) -> None:
        """Index `documents`, lists by index, each with an "id"; by default the shop's products."""
        super().__init__(name, **knobs)
        self.documents = dict(documents) if documents is not None else _catalogue()

        @self.app.get("/{index}/_search")
        async def search_by_words(index: str, request: Request, q: str = "", size: int = 10) -> Any:
            query: dict[str, Any] = {"match": {"*": q}} if q else {"match_all": {}}
            began = time.perf_counter()
            with self._call(request, index) as call:
                await call.wait()
                call.check()
                return self._answer(index, Search(query=query, size=size), began)

        @self.app.post("/{index}/_search")
        async def search(index: str, body: Search, request: Request) -> Any:
            began = time.perf_counter()
            with self._call(request, index) as call:
                await call.wait()
                call.check()
                return self._answer(index, body, began)

    def _answer(self, index: str, search: Search, began: float) -> dict[str, Any] | JSONResponse:
        try:
            hits = self._hits(index, search.query)
        except SearchError as error:
            return JSONResponse(error.body(), status_code=error.status)
        return {
            "took": round((time.perf_counter() - began) * 1000),
            "timed_out": False,
            "_shards": {"total": 1, "successful": 1, "skipped": 0, "failed": 0},
            "hits": {
                "total": {"value": len(hits), "relation": "eq"},
                "max_score": hits[0]["_score"] if hits else None,
                "hits": hits[search.from_ : search.from_ + search.size],
            },
        }

    def _hits(self, index: str, query: dict[str, Any]) -> list[dict[str, Any]]:
        if index not in self.documents:
            raise SearchError(404, "index_not_found_exception", f"no such index [{index}]")
        words, fields = _words_and_fields(query)
        hits: list[dict[str, Any]] = []
        for document in self.documents[index]:
            if score := _score(document, words, fields):
                source = {key: value for key, value in document.items() if key != "id"}
                found = {"_index": index, "_id": str(document["id"])}
                hits.append({**found, "_score": score, "_source": source})
        return sorted(hits, key=lambda hit: (-hit["_score"], hit["_id"]))


class SearchError(Exception):
    """A search that cannot be answered, in the shape of Elasticsearch's errors."""

    def __init__(self, status: int, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.kind = kind

    def body(self) -> dict[str, Any]:
        """Return the answer's body."""
        return {"error": {"type": self.kind, "reason": str(self)}, "status": self.status}


def _catalogue() -> dict[str, Sequence[Mapping[str, Any]]]:
    products = seeded_products(200)
    return {"products": [{"id": p.id, "name": p.name, "price": p.price} for p in products]}


def _words_and_fields(
    query: dict[str, Any],
) -> tuple[set[str], list[str] | Literal["every"] | None]:
    """Return the words to look for and in which fields; None means that everything matches."""
    match query:
        case {"match_all": dict()} if len(query) == 1:
            return set(), None
        case {"match": {**by_field}} if len(query) == 1 and len(by_field) == 1:
            [(field, wanted)] = by_field.items()
            text = wanted.get("query", "") if isinstance(wanted, dict) else wanted
            return _split(text), "every" if field == "*" else [str(field)]
        case {"multi_match": {"query": text, "fields": [*fields]}} if len(query) == 1:
            return _split(text), [str(field) for field in fields]
    raise SearchError(
        400,
        "parsing_exception",
        f"unknown query {sorted(query)}: use match, multi_match or match_all",
    )


def _score(
    document: Mapping[str, Any], words: set[str], fields: list[str] | Literal["every"] | None
) -> float:
    if fields is None:
        return 1.0
    read = document.keys() - {"id"} if fields == "every" else fields
    held = set[str]().union(*(_split(document.get(field, "")) for field in read))
    return float(len(words & held))


def _split(text: object) -> set[str]:
    return set(str(text).lower().split())
