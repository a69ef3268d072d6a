"""Tools of the maintainers. Nothing of it is installed."""
