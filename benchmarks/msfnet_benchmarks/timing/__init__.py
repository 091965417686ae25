"""Measures how long models take, and what else they cost."""
