"""The loop over time: the plain one, which specifies it, and fast ones that equal it."""
