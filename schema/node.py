"""Node: anything with an id of its own.

Source: https://relay.dev/graphql/objectidentification.htm
"""

import strawberry


@strawberry.interface(description="An object that `node` finds again by its id.")
class Node:
    """What contexts and messages have in common."""

    id: strawberry.ID = strawberry.field(description="A UUID, unique among all objects.")
