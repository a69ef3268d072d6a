"""The command line: the app, and a module for each group of commands."""
