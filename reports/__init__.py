"""What one looks at when a run is over: its figures, and the tables and pages of many runs."""

from runs.threads import wait_briefly

wait_briefly()  # before torch is imported
