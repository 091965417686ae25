"""Serves a live page of a running stream: frames and depth in a browser, without internet."""

from __future__ import annotations

from msfnet_runtime.web.sink import WebSink

__all__ = ["WebSink"]
