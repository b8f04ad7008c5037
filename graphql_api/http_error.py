"""Requests that are not even GraphQL over HTTP, and the status that says how."""

from schema.errors import BadUserInput, Refusal


class HttpError(Exception):
    """A refusal with the status and the headers that HTTP has for it."""

    def __init__(self, status: int, refusal: Refusal, *headers: tuple[bytes, bytes]) -> None:
        super().__init__(refusal.message)
        self.status = status
        self.refusal = refusal
        self.headers = headers


def bad_request(message: str) -> HttpError:
    """Refuse what has no more precise status."""
    return HttpError(400, BadUserInput(message))
