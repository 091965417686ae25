"""Provides CUDA through either Python binding: devices, memory, streams, graphs, events."""
