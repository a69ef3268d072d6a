"""What a cluster lacks: a module for each group of checks."""
