"""The tasks of the pipelines: one folder each, with names, types and one call into the library."""
