"""Settings: read from the environment, and `.env` in the working folder, once. Limits carry their unit in a name."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, AliasChoices, BeforeValidator, Field, SecretStr, ValidationError
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from graphql_api.origin import read_hosts, read_origins

# As the schema says of its pages; `schema.connection` is too slow an import for settings, and a test compares.
PAGE_DEFAULT, PAGE_MAX = 50, 1_000

Seconds = Annotated[float, Field(gt=0, le=86_400)]
Count = Annotated[int, Field(ge=1)]


class Authentication(StrEnum):
    """Which credentials are accepted."""

    NONE = "none"
    KEYS = "keys"
    JWT = "jwt"


def _read_list(value: Any) -> Any:
    """Read words that are separated by commas."""
    return tuple(dict.fromkeys(filter(None, map(str.strip, value.split(","))))) if isinstance(value, str) else value


def _one_way(chosen: tuple[Authentication, ...]) -> tuple[Authentication, ...]:
    if not chosen or (Authentication.NONE in chosen and len(chosen) > 1):
        raise PydanticCustomError("authentication", "it must be none, keys, jwt, or keys,jwt")
    return chosen


Words = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_read_list)]
Environment = Literal["development", "production"]
Origins = Annotated[tuple[str, ...], NoDecode, BeforeValidator(read_origins)]
Hosts = Annotated[tuple[str, ...], NoDecode, BeforeValidator(read_hosts)]


def _in_development(given: dict[str, Any]) -> bool:
    """Give the default of what only developers need."""
    return given.get("environment") == "development"


def _rate(given: dict[str, Any]) -> float:
    """Give the default rate limit: a thousand windows of 8,000 tokens a second, or 1,700 pages of 50 messages.

    In ten seconds that is as much as the dearest request may cost that is allowed.
    """
    return 100_000.0 if given.get("environment") == "production" else 0.0


def variable(field: str) -> str:
    """Give the environment variable of a setting."""
    return "DATABASE_URL" if field.lower() == "database_url" else f"FORKPOINT_{field.upper()}"


def refusals(error: ValidationError) -> list[tuple[str, str]]:
    """Give each variable that cannot be used, and why. Neither input nor context is told: it may be a secret."""
    found = error.errors(include_url=False, include_context=False, include_input=False)
    # A default that follows from other settings is not made then, which is nobody's fault.
    return [
        (variable(str(each["loc"][0])), each["msg"]) for each in found if each["type"] != "default_factory_not_called"
    ]


class Settings(BaseSettings):
    """Everything an operator may choose.

    The environment variable of a field is its name in capitals after `FORKPOINT_`; only `DATABASE_URL` stands alone.
    """

    model_config = SettingsConfigDict(
        env_prefix="FORKPOINT_", env_file=".env", env_file_encoding="utf-8", env_ignore_empty=True, extra="ignore"
    )

    environment: Environment = Field(
        default="development",
        description="`production` turns off what only developers need: introspection, suggestions and GraphiQL.",
    )
    database_url: SecretStr | None = Field(
        default=None,
        validation_alias=AliasChoices("DATABASE_URL", "database_url"),
        description="PostgreSQL to use, as a `postgresql://` URL. Without it an embedded server is started.",
    )
    migrate_url: SecretStr | None = Field(
        default=None,
        description="Another URL for migrations: a direct one beside a pooler, or a role that owns the tables.",
    )
    home: Path = Field(default=Path(".forkpoint"), description="Folder of the embedded server's data and sockets.")
    host: str = Field(default="127.0.0.1", description="Address to listen on.")
    port: int = Field(default=8000, ge=0, le=65_535, description="Port to listen on; 0 takes a free one.")
    graphiql: bool = Field(default_factory=_in_development, description="Serve GraphiQL to browsers at `/graphql`.")
    introspection: bool = Field(
        default_factory=_in_development, description="Answer what is asked about the schema: `__schema` and `__type`."
    )
    suggestions: bool = Field(
        default_factory=_in_development, description="Suggest names in errors, of fields for one that is misspelt."
    )
    allowed_origins: Origins = Field(
        default=(),
        description="Other origins whose web pages may call the service, such as `http://localhost:5173`.",
    )
    allowed_hosts: Hosts = Field(
        default=(),
        description="Names that a `Host` header may have, or `*` for any. Where none is set, a service on a loopback "
        "address allows that address, `localhost`, `127.0.0.1` and `[::1]`, and any other service all.",
    )

    authentication: Annotated[
        tuple[Authentication, ...], NoDecode, BeforeValidator(_read_list), AfterValidator(_one_way)
    ] = Field(
        default=(Authentication.NONE,),
        description="Credentials that are accepted: `keys`, `jwt`, or `keys,jwt`. With `none` whoever reaches the port "
        "reads and writes everything, as the tenant `default`.",
    )
    allow_unauthenticated: bool = Field(
        default=False, description="Serve without authentication on an address that other machines reach, too."
    )
    row_security: Literal["auto", "on", "off"] = Field(
        default="auto",
        description="Let PostgreSQL keep tenants apart too, by row-level security; `auto` is `on` with authentication.",
    )
    jwt_keys_url: str | None = Field(
        default=None, description="Where the keys that tokens are signed with are fetched, as a JSON Web Key Set."
    )
    jwt_key: SecretStr | None = Field(
        default=None,
        description="The key instead: a public key in PEM, a JSON Web Key or Key Set, or a secret of 32 bytes or more.",
    )
    jwt_issuer: str | None = Field(default=None, description="The `iss` that tokens must have.")
    jwt_audience: str | None = Field(default=None, description="The `aud` that tokens must have.")
    jwt_algorithms: Words = Field(
        default=("RS256", "ES256"), description="Algorithms that tokens may be signed with, separated by commas."
    )
    jwt_tenant_claim: str = Field(
        default="tenant", description="Claim that names the tenant; one that begins with `/` is a JSON Pointer."
    )
    jwt_scope_claim: str = Field(
        default="scope", description="Claim that holds the scopes, as a list or separated by spaces; likewise."
    )
    jwt_scope_prefix: str = Field(
        default="", description="What scopes of ours begin with in tokens, such as `forkpoint:`."
    )
    jwt_leeway_seconds: Annotated[float, Field(ge=0, le=300)] = Field(
        default=30.0, description="How far the clocks of the issuer and of this machine may differ."
    )
    jwt_keys_seconds: Seconds = Field(
        default=300.0, description="Age at which fetched keys are fetched anew; a token of an unknown key is earlier."
    )

    pool_size_min: Annotated[int, Field(ge=0)] = Field(default=2, description="Connections kept open by each process.")
    pool_size_max: Count = Field(
        default=8, description="Most connections that each process opens for transactions and for larger reads."
    )
    pool_wait_seconds: Seconds = Field(default=5.0, description="Longest wait for a free connection.")
    fast_lane_connections: Annotated[int, Field(ge=0, le=64)] = Field(
        default=4,
        description="Connections that all small reads of a process share; 0 for none, and for no append connections. "
        "Behind a transaction pooler there are none of either.",
    )
    append_connections: Annotated[int, Field(ge=1, le=64)] = Field(
        default=8, description="Most connections for appends without a key, opened as they are needed."
    )
    debug_extensions: bool = Field(
        default=False, description="Say in each answer's `extensions` whether it was `planned` or `resolved`."
    )
    planned_reads: bool = Field(default=True, description="Answer queries by plans; without, resolver by resolver.")
    poll_seconds: Seconds = Field(
        default=1.0,
        description="Time between two looks for what subscribers wait for, where PostgreSQL cannot notify: behind a "
        "transaction pooler, on a replica, and while the connection that listens is away.",
    )
    slow_poll_seconds: Seconds = Field(
        default=30.0, description="The same while it does notify, for a notification that was lost."
    )
    connect_seconds: Seconds = Field(default=5.0, description="Longest wait for a new connection to be made.")
    query_seconds: Seconds = Field(
        default=10.0, description="Longest time that one statement which only reads may run."
    )
    mutation_seconds: Seconds = Field(default=30.0, description="Longest time that any other statement may run.")
    subscription_seconds: Seconds = Field(
        default=10.0, description="Longest time that one event of a subscription takes to be answered."
    )
    # A copy of a million messages takes 20 to 50.
    request_seconds: Seconds = Field(
        default=120.0, description="Longest time that one query or mutation is executed, of however many statements."
    )
    health_seconds: Seconds = Field(default=2.0, description="Longest time the health probe takes to answer.")
    shutdown_seconds: Seconds = Field(default=10.0, description="Longest wait for requests in flight at shutdown.")

    body_bytes_max: Count = Field(
        default=50 * 1024 * 1024,
        description="Largest request body. 8 MiB of text may take 48 MiB as JSON escapes.",
    )
    bodies_bytes_max: Count = Field(
        default=256 * 1024 * 1024,
        description="Most bytes of the larger request bodies that each process holds, and of one tenant half of them, "
        "but one body of the largest size at least.",
    )
    requests_max: Count = Field(
        default=128, description="Most queries, mutations and events of subscriptions that each process executes."
    )
    request_queue_max: Annotated[int, Field(ge=0)] = Field(
        default=1_000, description="Most requests that wait in each process for their turn; more are refused."
    )
    connections_max: Count = Field(
        default=10_000, description="Most connections that each process has open, idle ones and WebSockets too."
    )
    header_seconds: Seconds = Field(
        default=10.0,
        description="Longest time for the head of a request to arrive, and for a new connection to send one.",
    )
    body_seconds: Seconds = Field(
        default=30.0, description="Longest time for a body to arrive, and a second more for each 32 KiB of it that did."
    )
    write_seconds: Seconds = Field(
        default=30.0, description="Longest time that a client may take nothing of its answer before it is given up."
    )
    request_wait_seconds: Seconds = Field(default=10.0, description="Longest wait for a turn.")
    rate_points_per_second: Annotated[float, Field(ge=0, le=1_000_000)] = Field(
        default_factory=_rate,
        description="Points that each tenant gets, one for each row or KiB that it asks for; 0 for no limit.",
    )
    rate_points_burst: int | None = Field(
        default=None,
        ge=1,
        description="Points that a tenant keeps when it does not spend them; by default those of ten seconds.",
    )
    rate_shared: bool = Field(
        default=False, description="Let the rate limit hold over all processes, by a statement for each request."
    )
    subscriptions_max: Count = Field(default=10_000, description="Most subscriptions that each process has open.")
    connection_operations_max: Count = Field(
        default=100, description="Most subscriptions, queries and mutations under way on one WebSocket."
    )
    connection_init_seconds: Seconds = Field(
        default=10.0, description="Longest wait for the first message of a WebSocket, `connection_init`."
    )
    keep_alive_seconds: Seconds = Field(
        default=12.0,
        description="Time between signs of life on a WebSocket or a stream, so that no proxy takes it for dead. "
        "A WebSocket whose client leaves one unanswered for as long is closed.",
    )
    document_tokens_max: Count = Field(default=10_000, description="Most lexical tokens in a GraphQL document.")
    document_depth_max: Count = Field(default=30, description="Deepest nesting of fields in an operation.")
    document_fields_max: Count = Field(
        default=2_000, description="Most fields in an operation, each fragment counted wherever it is spread."
    )
    document_aliases_max: Count = Field(
        default=500, description="Most aliases in an operation, counted like its fields."
    )
    document_root_fields_max: Count = Field(default=100, description="Most fields at the root of an operation.")
    document_directives_max: Count = Field(
        default=200, description="Most directives in a document, as often as they are written."
    )
    variables_items_max: Count = Field(
        default=10_000, description="Most list items in the variables, but for those inside of JSON."
    )
    page_size_max: Annotated[int, Field(ge=PAGE_DEFAULT, le=PAGE_MAX)] = Field(
        default=PAGE_MAX, description="Most items in a page, and most ids in `nodes`."
    )
    cost_rows_max: Count = Field(
        default=250_000, description="Most rows that a request may cost, as they are estimated before it is executed."
    )
    cost_bytes_max: Count = Field(
        default=512 * 1024 * 1024, description="Most bytes that a request may cost, as they are estimated likewise."
    )
    persisted_queries: bool = Field(
        default=True, description="Let clients send the hash of a document that they sent before, as Apollo's do."
    )
    trusted_documents: Path | None = Field(
        default=None,
        description="Documents to be asked for by id: a JSON file of ids and texts, or a folder of `.graphql` files.",
    )
    trusted_documents_only: bool = Field(
        default=False, description="Execute nothing but the documents of `FORKPOINT_TRUSTED_DOCUMENTS`."
    )
    append_messages_max: Count = Field(default=1_000, description="Most messages in one call.")
    append_bytes_max: Count = Field(default=8 * 1024 * 1024, description="Most UTF-8 bytes of messages in one call.")
    # The recursive statements stop at 100,000 steps.
    fork_depth_max: Annotated[int, Field(ge=1, le=100_000)] = Field(
        default=10_000, description="Longest chain of forks of forks."
    )
    window_messages_max: Annotated[int, Field(ge=1, le=1_000_000)] = Field(
        default=10_000, description="Most messages in a window."
    )
    idempotency_hours: Annotated[int, Field(ge=24, le=87_600)] = Field(
        default=24, description="Shortest time that an idempotency key is kept."
    )
    # 100,000 small ones take 2 to 5 seconds, in one transaction.
    copy_messages_max: Count = Field(default=1_000_000, description="Most messages that `copyContext` copies.")

    token_encoding: Literal["o200k_base", "cl100k_base"] = Field(
        default="o200k_base", description="Encoding that counts the tokens of messages that bring no count."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(default="info", description="Least level logged.")
    log_format: Literal["auto", "json", "console"] = Field(
        default="auto", description="Shape of the log; `auto` is `console` on a terminal and `json` elsewhere."
    )


def row_security_of(settings: Settings) -> bool:
    """Tell whether transactions name their tenant to PostgreSQL, for its row-level security."""
    if settings.row_security == "auto":
        return Authentication.NONE not in settings.authentication  # without authentication there is one tenant
    return settings.row_security == "on"
