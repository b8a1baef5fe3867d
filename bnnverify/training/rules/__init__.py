"""Update rules: one file each, behind the small Protocol of `base.py`."""
