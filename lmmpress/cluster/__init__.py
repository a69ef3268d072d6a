"""Kubernetes: what a cluster is like, what a pod gets of it, submitting."""
