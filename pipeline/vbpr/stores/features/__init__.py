"""The feature file."""
