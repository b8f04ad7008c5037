"""What live readers cost, beside named alternatives."""
