"""A page on this machine where a trained model writes, or speaks, while one listens."""
