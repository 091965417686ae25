"""Measures depth: metrics, named protocols, ground truth, latency and reports."""
