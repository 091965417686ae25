"""front door."""
