"""Renders streets and rooms with exact depth by ray casting."""
