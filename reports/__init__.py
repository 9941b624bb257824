"""What one looks at when a run is over: its figures, and the tables and pages of many runs."""
