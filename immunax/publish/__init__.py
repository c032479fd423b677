"""A model, its card and its certificate for others: what of their folders is sent, and the one commit that it is sent in."""
