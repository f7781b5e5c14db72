"""Bayesian personalised ranking: the engine of `visual`, `vbpr` and `bprmf`."""
