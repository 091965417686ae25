"""Frames with ground truth: data sets, their lists and checks, and generated ones."""
