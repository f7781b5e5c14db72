"""The networks that see: backbones, their weights, and pixels as they want them. Uses data, compute and base."""
