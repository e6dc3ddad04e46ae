"""The tests, one file beside each file of the package."""
