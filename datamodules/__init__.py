"""Where sequences come from: one file a corpus family, one shared base."""
