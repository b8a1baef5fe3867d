"""Exact reliability under bit errors."""
