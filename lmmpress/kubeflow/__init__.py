"""Kubeflow Pipelines: compile, pod settings, submit, and the tasks as processes of this machine."""
