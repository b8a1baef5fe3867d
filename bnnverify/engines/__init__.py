"""Engines: each answers queries exactly, behind the small Protocol of `base.py`."""
