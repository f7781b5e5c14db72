"""`vbpr tune`."""
