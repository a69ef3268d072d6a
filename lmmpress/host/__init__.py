"""This machine: its processes, what they import, what its system answers."""
