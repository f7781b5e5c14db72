"""Stage one: images through a frozen backbone into a feature file (`extract`); photos that are asked about go the same
way (`photos`). Uses stores, networks, compute, data, executors and base; training meets it in the stores alone."""
