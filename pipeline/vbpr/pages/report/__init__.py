"""`vbpr report`: one HTML page about a model. Uses training (for baselines), evaluation, stores, data and base."""
