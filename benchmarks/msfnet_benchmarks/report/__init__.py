"""A benchmark's report: plain data, tables, charts and a page."""
