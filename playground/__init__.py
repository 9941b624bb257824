"""A page on this machine where a trained model writes, or speaks, while one listens."""

from callbacks.threads import wait_briefly

wait_briefly()  # before torch is imported
