"""The one error type that a user is meant to read."""

from __future__ import annotations


class MsfnetError(Exception):
    """Something the user can put right: one line that says what was wrong and what to do."""
