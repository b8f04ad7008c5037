"""Which web pages may use the service: those of its own origin, and those of the origins that are allowed.

A browser lets a page read answers of another origin only where CORS says so, but it lets every page open a WebSocket
anywhere. So handshakes are checked here. Sources: RFC 6454; RFC 6455, section 10.2; https://fetch.spec.whatwg.org
"""

import json
import re
from collections.abc import Collection, Iterable
from typing import Any

from pydantic_core import PydanticCustomError

EVERY = "*"
# Scheme, host (a name, an IPv4 address, or an IPv6 address in brackets) and port.
ORIGIN = re.compile(r"([a-z][a-z0-9+.-]*)://([a-z0-9._~-]+|\[[0-9a-f:.]+\])(?::([0-9]{1,5}))?", re.ASCII)
DEFAULT_PORTS = {"http": 80, "https": 443}
PORTS_END = 65_536

# What Starlette's CORSMiddleware is told beside the origins. Nothing of ours is granted by cookies, so no credentials
# are allowed; whatever else a client sends along may be sent.
CORS: dict[str, Any] = {
    "allow_methods": ["GET", "HEAD", "POST"],
    "allow_headers": ["*"],
    "expose_headers": ["Allow", "Server-Timing", "X-Request-ID"],
    # A page of a public address may call a service on a private one, if its origin is allowed.
    "allow_private_network": True,
}


def read_origins(value: Any) -> Any:
    """Read origins that are separated by commas, or a JSON list of them, as browsers would send them.

    Raises: PydanticCustomError.
    """
    if isinstance(value, str):
        value = _read_json(value) if value.lstrip().startswith("[") else value.split(",")
    if not isinstance(value, list | tuple | set | frozenset) or not all(isinstance(each, str) for each in value):
        raise PydanticCustomError("origins", "it must be origins separated by commas, or a JSON list of them")
    return tuple(dict.fromkeys(_read_origin(each.strip()) for each in value if each.strip()))


def _read_json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


def _read_origin(text: str) -> str:
    if text == EVERY:
        return text
    if text.lower() == "null":
        raise PydanticCustomError("origin", "any page can make its origin null: allow * if all pages may call")
    origin = _normal(text.removesuffix("/"))
    if origin is None:
        message = "an origin is a scheme, a host and perhaps a port, such as http://localhost:5173, or * for all"
        raise PydanticCustomError("origin", message)
    return origin


def _normal(text: str) -> str | None:
    """Write an origin as browsers do: in lower case, without the port that its scheme implies. None for what is none.

    That is `null` too, which the pages of files and of sandboxes send.
    """
    found = ORIGIN.fullmatch(text.lower())
    if found is None:
        return None
    scheme, host, digits = found.groups()
    port = int(digits) if digits else DEFAULT_PORTS.get(scheme)
    if port is not None and not 0 < port < PORTS_END:
        return None
    return f"{scheme}://{host}" if port == DEFAULT_PORTS.get(scheme) else f"{scheme}://{host}:{port}"


def may_connect(headers: Iterable[tuple[bytes, bytes]], allowed: Collection[str]) -> bool:
    """Tell whether a WebSocket may be opened by whoever sends this handshake.

    What sends no Origin is no browser, and may. A page may if it came from the host and port that the handshake is sent
    to, or if its origin is allowed. `headers` are those of an ASGI scope; `allowed` is FORKPOINT_ALLOWED_ORIGINS.
    """
    told = [(name, value.decode("latin-1")) for name, value in headers if name in {b"origin", b"host"}]
    origins = [value for name, value in told if name == b"origin"]
    hosts = [value for name, value in told if name == b"host"]
    if not origins or EVERY in allowed:
        return True
    origin = _normal(origins[0]) if len(origins) == 1 else None  # no browser sends several
    return origin is not None and (origin in allowed or (len(hosts) == 1 and _is_at(origin, hosts[0])))


def _is_at(origin: str, host: str) -> bool:
    """Tell whether an origin's host and port are those of a Host header. A proxy may have taken TLS off."""
    scheme = origin.partition("://")[0]
    return scheme in DEFAULT_PORTS and _normal(f"{scheme}://{host}") == origin
