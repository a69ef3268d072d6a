"""The commands that work on one thing each: a store, a cluster."""
