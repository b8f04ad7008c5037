"""Windows: the newest messages that fit a budget of tokens, such that a model takes them."""

from typing import Annotated
from uuid import UUID

import strawberry

from db.window import Fitted, Frame
from schema.errors import BadUserInput, LimitExceeded
from schema.message import Message
from schema.request import Info

Budget = Annotated[
    int, strawberry.argument(description="The most tokens that the window may have, the SYSTEM messages included.")
]
Step = Annotated[
    int | None,
    strawberry.argument(
        description="Lets the window begin on a grid of so many tokens, so that windows of a growing context begin "
        "alike for a while and a provider's prompt cache is hit; 0 for no grid. A quarter of the budget is a good step."
    ),
]
KeepSystem = Annotated[
    bool | None,
    strawberry.argument(
        description="Whether the SYSTEM messages at the very start of the context are always included."
    ),
]


@strawberry.type(
    description="The newest messages that fit a budget, ready to be sent to a model: a tool call stays together with "
    "its results. First the SYSTEM messages that the context begins with, then the longest suffix that has room."
)
class Window:
    """What was fitted."""

    messages: list[Message] = strawberry.field(
        description="The kept SYSTEM messages and the suffix, ascending by version. Only the former where not even the "
        "newest unit fits; none at all where the former do not fit either."
    )
    token_count: int = strawberry.field(description="The tokens of these messages, never more than the budget.")
    budget: int = strawberry.field(description="The budget that was given.")
    truncated: bool = strawberry.field(description="Whether a message of the context was left out.")
    from_version: int | None = strawberry.field(description="The first version of the suffix, null when it is empty.")
    to_version: int | None = strawberry.field(description="The last version of the suffix, null when it is empty.")
    minimum_budget: int = strawberry.field(
        description="The smallest budget that would return at least the newest unit (a message, or a tool call with "
        "all that follows until its last result) beside the kept SYSTEM messages. It takes no account of `step`."
    )


def frame(
    context_id: UUID,
    version: int | None,
    total_tokens: int | None,
    budget: int,
    step: int | None,
    keep_system: bool | None,  # noqa: FBT001 - an argument of the field
) -> Frame:
    """Say which window is meant: through a version that holds so many visible tokens; both None for the whole lineage.

    Raises: BadUserInput.
    """
    step = step or 0
    if budget < 1:
        raise BadUserInput(f"budget is {budget}. It must be 1 token or more.")
    if step < 0:
        raise BadUserInput(f"step is {step}. It must be 0 or more tokens.")
    return Frame(context_id, version, total_tokens, budget, step, keep_system is not False)


async def fit(info: Info, wanted: Frame, message_count: int) -> Window:
    """Fit a window of a lineage that has so many visible messages.

    Raises: LimitExceeded.
    """
    fitted = await info.context.loaders.window.load(wanted)
    messages_max = info.context.service.limits.window_messages_max
    return show(
        fitted, wanted.budget, message_count, messages_max, [Message.of(message) for message in fitted.messages]
    )


def show(fitted: Fitted, budget: int, message_count: int, messages_max: int, messages: list[Message]) -> Window:
    """Show a window that was fitted; `messages` are its messages as the caller shows them.

    Raises: LimitExceeded.
    """
    if len(fitted.messages) > messages_max:
        raise LimitExceeded(
            f"The window has more than {messages_max} messages, the most allowed "
            "(FORKPOINT_WINDOW_MESSAGES_MAX). Ask for a smaller budget."
        )
    return Window(
        messages=messages,
        token_count=sum(message.token_count for message in fitted.messages),
        budget=budget,
        truncated=len(fitted.messages) < message_count,
        from_version=fitted.start_version,
        to_version=None if fitted.start_version is None else fitted.messages[-1].version,
        minimum_budget=fitted.minimum_budget,
    )
