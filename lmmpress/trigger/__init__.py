"""The trigger: starts re-compression when a registered model changes, exactly once for each question."""
