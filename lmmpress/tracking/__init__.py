"""MLflow: what a run leaves there (lineage), and what is read from there (registry)."""
