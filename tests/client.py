"""A GraphQL client for tests: it speaks HTTP to the application, over the wire or in the same process."""

from typing import Any

import httpx2


class ApiError(Exception):
    """An answer with errors. `code` and `message` are those of the first."""

    def __init__(self, body: dict[str, Any]) -> None:
        super().__init__(str(body["errors"]))
        self.errors: list[dict[str, Any]] = body["errors"]
        self.data: dict[str, Any] | None = body.get("data")
        self.code: str = self.errors[0]["extensions"]["code"]
        self.message: str = self.errors[0]["message"]


class Api:
    """`await api(document, **variables)` gives the data, or raises ApiError."""

    def __init__(self, http: httpx2.AsyncClient) -> None:
        self.http = http

    async def __call__(self, document: str, **variables: Any) -> dict[str, Any]:
        body = (await self.http.post("/graphql", json={"query": document, "variables": variables})).json()
        if "errors" in body:
            raise ApiError(body)
        data: dict[str, Any] = body["data"]
        return data
