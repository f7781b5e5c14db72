"""How good a model is, exactly: ranks of held-out items among all others, and what they say. Uses stores, compute, data
and base."""
