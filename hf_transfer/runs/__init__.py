"""Whole runs, from arguments to a published folder; the command line and the recipes are thin layers over them."""
