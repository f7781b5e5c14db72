"""What lies on the disk between the stages: features, and fitted models. Uses data and base; no torch."""
