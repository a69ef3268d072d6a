"""YAML as plain data, and a line for each fault in it."""
