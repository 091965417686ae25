"""Depth metrics, protocols, and what is scored with them."""
