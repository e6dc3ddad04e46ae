"""Pre-training objectives."""

OBJECTIVES: dict[str, str] = {}
"""Name -> "module:class", imported when asked for."""
