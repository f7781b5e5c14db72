"""Frozen image models (`registry`: BACKBONES), how images are prepared for them, and the autoencoder that is trained on
a catalogue's own images. Uses data, compute and base."""
