"""Steps that give API keys."""

from collections.abc import Sequence

from schema.api_key import ApiKey, ApiKeyConnection, Page
from schema.connection import PAGE_DEFAULT
from schema.moment import Moment
from schema.principal import Scope
from schema.step import Asked, Step, derived, page_rows


async def _api_keys(
    at: Moment, _objects: Sequence[None], _asked: Asked, first: int | None = PAGE_DEFAULT, after: str | None = None
) -> list[ApiKeyConnection]:
    at.request.principal.require(Scope.ADMIN)
    page = Page(first, after, at.request.service.limits.page_size_max)
    return [page.of(await at.batches.api_key_page(page.after, page.limit + 1))]


def _scopes(_at: Moment, keys: Sequence[ApiKey], _asked: Asked) -> list[list[str]]:
    return [[scope.name for scope in key.held] for key in keys]


STEPS = {
    ("Query", "apiKeys"): Step(_api_keys, page_rows),
    ("ApiKey", "scopes"): derived(_scopes),
}
