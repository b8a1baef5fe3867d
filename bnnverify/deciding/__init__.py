"""Decisions about real networks in stages: bounds, attack, tightened bounds, complete engines."""
