"""What runs a plan for the trigger: Kubeflow Pipelines, Argo Workflows, or a process of this machine."""
