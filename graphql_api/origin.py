"""Which web pages may use the service: those of its own origin, and those of the origins that are allowed.

A browser lets a page read answers of another origin only where CORS says so, but it lets every page open a WebSocket
anywhere. So handshakes are checked here. And a page may have its own name resolve to our address after it was loaded
(DNS rebinding): what is its own origin then, only the Host header tells from ours.
Sources: RFC 6454; RFC 6455, section 10.2; RFC 9110, section 7.2; https://fetch.spec.whatwg.org
"""

import ipaddress
import json
import re
from collections.abc import Callable, Collection, Iterable
from typing import Any, LiteralString

from pydantic_core import PydanticCustomError

EVERY = "*"
IPV6 = re.compile(r"\s*\[[0-9A-Fa-f.]*:")
# Scheme, host (a name, an IPv4 address, or an IPv6 address in brackets) and port.
ORIGIN = re.compile(r"([a-z][a-z0-9+.-]*)://([a-z0-9._~-]+|\[[0-9a-f:.]+\])(?::([0-9]{1,5}))?", re.ASCII)
# A Host header: the same, without a scheme.
HOST = re.compile(r"([a-z0-9._~-]+|\[[0-9a-f:.]+\])(?::[0-9]{0,5})?", re.ASCII)
LOCAL_HOSTS = ("localhost", "127.0.0.1", "[::1]")
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
    return _read_list(value, "origins", _read_origin)


def read_hosts(value: Any) -> Any:
    """Read names that a Host header may have, separated by commas or as a JSON list, without ports.

    Raises: PydanticCustomError.
    """
    return _read_list(value, "hosts", _read_host)


def _read_list(value: Any, what: LiteralString, read: Callable[[str], str]) -> tuple[str, ...]:
    if isinstance(value, str):
        # An IPv6 address begins with a bracket, too.
        value = _read_json(value) if value.lstrip().startswith("[") and not IPV6.match(value) else value.split(",")
    if not isinstance(value, list | tuple | set | frozenset) or not all(isinstance(each, str) for each in value):
        raise PydanticCustomError(what, "it must be " + what + " separated by commas, or a JSON list of them")
    return tuple(dict.fromkeys(read(each.strip()) for each in value if each.strip()))


def _read_json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


def _read_host(text: str) -> str:
    found = HOST.fullmatch(text.lower())
    if text != EVERY and (found is None or found[1] != text.lower()):
        message = "a host is a name or an address without a port, such as api.example.org or [::1], or * for all"
        raise PydanticCustomError("host", message)
    return text.lower()


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


def hosts(allowed: Collection[str], address: str) -> frozenset[str]:
    """Give the names that the service is called by, where it listens on an address; EVERY for any.

    `allowed` is FORKPOINT_ALLOWED_HOSTS. Where nothing is set, a loopback address is called by its names and no other.
    """
    if allowed:
        return frozenset(allowed)
    if address.lower() not in LOCAL_HOSTS:
        try:
            if not ipaddress.ip_address(address).is_loopback:
                return frozenset({EVERY})
        except ValueError:  # a name, which may lead anywhere
            return frozenset({EVERY})
    return frozenset({*LOCAL_HOSTS, f"[{address}]" if ":" in address else address.lower()})


def is_called(headers: Iterable[tuple[bytes, bytes]], names: Collection[str]) -> bool:
    """Tell whether a request names one of the hosts, once, at any port. `headers` are those of an ASGI scope."""
    told = [value for name, value in headers if name == b"host"]
    found = HOST.fullmatch(told[0].decode("latin-1").lower()) if len(told) == 1 else None
    return found is not None and found[1] in names


def _is_at(origin: str, host: str) -> bool:
    """Tell whether an origin's host and port are those of a Host header. A proxy may have taken TLS off."""
    scheme = origin.partition("://")[0]
    return scheme in DEFAULT_PORTS and _normal(f"{scheme}://{host}") == origin
