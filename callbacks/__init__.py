"""What happens around training: pictures, diagnostics, tracking. One concern a file."""
