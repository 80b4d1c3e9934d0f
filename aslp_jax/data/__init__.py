"""The embedded data files; see README.md beside them."""
