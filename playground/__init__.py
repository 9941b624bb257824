"""A page on this machine where a trained model writes, or speaks, while one listens."""

from runs.threads import wait_briefly

wait_briefly()  # before torch is imported
