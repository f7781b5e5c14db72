"""`vbpr serve`."""
