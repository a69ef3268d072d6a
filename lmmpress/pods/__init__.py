"""Kubernetes as plain JSON, and its pods for people: what they wait for, and why one failed."""
