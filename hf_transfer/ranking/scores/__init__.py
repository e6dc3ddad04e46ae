"""The scores of a ranking, one a file."""
