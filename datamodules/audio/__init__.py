"""Sound: where it comes from."""
