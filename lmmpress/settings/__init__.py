"""Reads YAML as plain data, and describes each fault of settings in one line."""
