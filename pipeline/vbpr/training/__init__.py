"""Stage two: interactions and cached features into a fitted model. Uses evaluation, networks (for models that look at
pictures), stores, compute, data and base; never extraction."""
