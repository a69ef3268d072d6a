"""The server: MLflow's webhook, the REST interface, health and metrics, and the reconciler inside of it."""
