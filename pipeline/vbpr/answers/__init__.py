"""What a fitted model answers: nearest items, lists, filters, and items added since. Uses extraction (for photos),
stores, data and base; no torch where no photo is asked about."""
