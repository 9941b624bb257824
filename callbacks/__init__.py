"""The callbacks of Lightning that training uses. One concern a file."""
