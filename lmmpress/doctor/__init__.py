"""Checks what a cluster lacks for our pipelines; one module for each group of checks."""
