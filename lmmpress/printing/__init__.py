"""Prints text for users: without markup, control characters and credentials."""
