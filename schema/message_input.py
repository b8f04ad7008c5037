"""Messages to append: what a caller sends, checked and counted before any connection is taken."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import strawberry
import uuid_utils.compat
from strawberry.scalars import JSON

from db.records import NewMessage
from schema.errors import BadUserInput, LimitExceeded
from schema.message import Role
from schema.request import Service
from schema.storable import check_json, check_object, check_text, json_text, jsonb_length, utf8_length

TOKEN_COUNT_MAX = 10_000_000


@strawberry.input(description="A call of a tool that an assistant message makes.")
class ToolCallInput:
    """As the provider produced it."""

    id: str = strawberry.field(description="The provider's id of the call.")
    name: str = strawberry.field(description="The tool that is called.")
    arguments: JSON = strawberry.field(description="What it is called with: any JSON value, kept as it is.")


@strawberry.input(description="A message to append.")
class MessageInput:
    """As much of a message as the caller decides."""

    role: Role = strawberry.field(description="Who speaks.")
    content: str = strawberry.field(description="The text, which may be empty.")
    tool_calls: list[ToolCallInput] | None = strawberry.field(
        default=None, description="The tool calls of an ASSISTANT message."
    )
    tool_call_id: str | None = strawberry.field(
        default=None, description="The call that a TOOL message answers: it must have one, and no other role may."
    )
    tool_name: str | None = strawberry.field(default=None, description="The tool that a TOOL message comes from.")
    token_count: int | None = strawberry.field(
        default=None,
        description="Its tokens, if the caller knows better than the service, which otherwise counts the content and "
        "each tool call's name and arguments.",
    )
    model: str | None = strawberry.field(default=None, description="The model that produced it.")
    metadata: JSON | None = strawberry.field(default=None, description="A JSON object of the caller's own.")


async def read(
    service: Service, messages: Sequence[MessageInput], place: str, *, beside_bytes: int = 0
) -> list[NewMessage]:
    """Check a batch, give each message an id, and count the tokens of those that bring no count.

    `place` names the batch in error messages, such as `input.messages`; `beside_bytes` is what else the call brings.
    Raises: BadUserInput, LimitExceeded.
    """
    limits = service.limits
    if len(messages) > limits.append_messages_max:
        raise LimitExceeded(
            f"{place} holds {len(messages)} messages. One call takes {limits.append_messages_max} at most "
            "(FORKPOINT_APPEND_MESSAGES_MAX)."
        )
    checked: list[NewMessage] = []
    size = beside_bytes
    for index, message in enumerate(messages):
        checked.append(_check(message, f"{place}[{index}]"))
        size += _stored_bytes(checked[-1])
        if size > limits.append_bytes_max:
            raise LimitExceeded(
                f"{place} takes more than {limits.append_bytes_max} bytes, reached at {place}[{index}]. "
                "That is the most in one call (FORKPOINT_APPEND_BYTES_MAX); send several."
            )
    uncounted = [index for index, message in enumerate(messages) if message.token_count is None]
    counts = await _count(service, [messages[index] for index in uncounted])
    for index, count in zip(uncounted, counts, strict=True):
        checked[index] = _counted(checked[index], count, f"{place}[{index}]")
    return checked


async def read_one(service: Service, message: MessageInput, place: str) -> NewMessage:
    """Check and count one message as a batch of its own; `place` names it in error messages.

    Raises: as `read`.
    """
    checked = _check(message, place)
    size, size_max = _stored_bytes(checked), service.limits.append_bytes_max
    if size > size_max:
        raise LimitExceeded(
            f"{place} takes {size} bytes. It may take {size_max} at most, by FORKPOINT_APPEND_BYTES_MAX."
        )
    if message.token_count is not None:
        return checked
    (count,) = await _count(service, [message])
    return _counted(checked, count, place)


def _counted(message: NewMessage, count: int, place: str) -> NewMessage:
    if count > TOKEN_COUNT_MAX:
        raise LimitExceeded(f"{place} has {count} tokens. A message may have {TOKEN_COUNT_MAX} at most.")
    return replace(message, token_count=count)


def _check(message: MessageInput, place: str) -> NewMessage:
    _check_tools(message, place)
    for name, text in (
        ("content", message.content),
        ("toolCallId", message.tool_call_id),
        ("toolName", message.tool_name),
        ("model", message.model),
    ):
        if text is not None:
            check_text(text, f"{place}.{name}")
    metadata: object = {} if message.metadata is None else message.metadata
    check_object(metadata, f"{place}.metadata")
    count = message.token_count
    if count is not None and count < 0:
        raise BadUserInput(f"{place}.tokenCount is {count}. It must be 0 or more.")
    if count is not None and count > TOKEN_COUNT_MAX:
        raise LimitExceeded(f"{place}.tokenCount is {count}. A message may have {TOKEN_COUNT_MAX} tokens at most.")
    return NewMessage(
        id=uuid_utils.compat.uuid7(),
        role=message.role.value,
        content=message.content,
        tool_calls=_tool_calls(message),
        tool_call_id=message.tool_call_id,
        tool_name=message.tool_name,
        token_count=count or 0,
        model=message.model,
        metadata=json_text(metadata),
    )


def _check_tools(message: MessageInput, place: str) -> None:
    if message.tool_calls and message.role is not Role.ASSISTANT:
        raise BadUserInput(
            f"{place}.toolCalls is given for a {message.role.name} message. Only ASSISTANT messages call tools."
        )
    if message.role is Role.TOOL and not message.tool_call_id:
        raise BadUserInput(f"{place}.toolCallId is missing. A TOOL message names the call that it answers.")
    for name, value in (("toolCallId", message.tool_call_id), ("toolName", message.tool_name)):
        if value is not None and message.role is not Role.TOOL:
            raise BadUserInput(
                f"{place}.{name} is given for a {message.role.name} message. Only TOOL messages have one."
            )
    for index, call in enumerate(message.tool_calls or ()):
        check_text(call.id, f"{place}.toolCalls[{index}].id")
        check_text(call.name, f"{place}.toolCalls[{index}].name")
        if call.arguments is None:
            raise BadUserInput(f"{place}.toolCalls[{index}].arguments is null. A call without arguments has {{}}.")
        check_json(call.arguments, f"{place}.toolCalls[{index}].arguments")


def _tool_calls(message: MessageInput) -> str | None:
    if not message.tool_calls:
        return None
    return json_text([{"id": call.id, "name": call.name, "arguments": call.arguments} for call in message.tool_calls])


def _stored_bytes(message: NewMessage) -> int:
    return jsonb_length(message.metadata) + sum(map(utf8_length, _texts(message)))


def _texts(message: NewMessage) -> Iterator[str]:
    """Give what takes room beside the metadata."""
    for text in (
        message.content,
        message.tool_calls,
        message.tool_call_id,
        message.tool_name,
        message.model,
    ):
        if text is not None:
            yield text


async def _count(service: Service, messages: Sequence[MessageInput]) -> list[int]:
    """Count the content, and each tool call's name and compact arguments; a message itself costs nothing."""
    texts: list[str] = []
    ends: list[int] = []
    for message in messages:
        texts.append(message.content)
        for call in message.tool_calls or ():
            texts += (call.name, json_text(call.arguments))
        ends.append(len(texts))
    counts = await service.token_counter.count_all(texts)
    return [sum(counts[start:end]) for start, end in zip([0, *ends], ends, strict=False)]
