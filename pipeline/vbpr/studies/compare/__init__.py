"""`vbpr compare`."""
