"""A fitted model and what was bought since: taken in without training anew."""
