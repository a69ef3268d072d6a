"""This machine: the environment and import path of its processes, and its system errors."""
