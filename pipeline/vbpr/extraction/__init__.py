"""Stage one: images through a frozen backbone into a feature file; photos that are asked about go the same way. Uses
stores, networks, compute, data and base."""
