"""The doctor: what a cluster lacks for a plan to run there, and what mends it. Nothing is changed by looking."""
