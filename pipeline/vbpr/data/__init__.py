"""Data as people have it: who took what, what is known of the items, their pictures, and the folder that holds it all.
Uses base alone."""
