"""The pipelines: the steps of a run as Kubeflow schedules them, in two granularities."""
