"""What surrounds a run: checked before it, recorded during it, and left after it."""
