"""`vbpr report`."""
