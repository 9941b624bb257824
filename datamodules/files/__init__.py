"""Files: found, split, downloaded, read and cached."""
