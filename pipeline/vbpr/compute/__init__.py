"""What it is computed on: the CPU or a GPU, memory, and checkpoints of what is under way. Uses base and data."""
