"""The results that have no figure in figures.py, and why."""

LEFT_OUT = {
    "advise": "accuracies and sizes of two plans, without a target",
    "better_repair": "accuracies by seed; docs/sample.md has the table",
    "better_states": "accuracies by seed; docs/paper.md says what they are",
    "cluster": "seconds and requests of pods; docs/kubeflow.md has the table",
    "controls": "accuracies; docs/sample.md has the table",
    "criteria": "losses and accuracies; docs/sample.md has the table",
    "criteria_two_blocks": "losses and accuracies; docs/sample.md has the table",
    "economy": "not kept yet; what is predicted of a training's memory, and its loss",
    "determinism": "differences of digits; docs/determinism.md has the table",
    "gpu": "not kept yet; it needs a GPU",
    "distillation_rows": "accuracies; docs/plan.md has the table",
    "learning_rate": "accuracies by rate; docs/benchmarks.md has the table",
    "peers": "accuracies and sizes, without a target; docs/peers.md has the tables",
    "pipeline_size": "bytes, without a target; docs/kubeflow.md has the table",
    "profile_step": "shares of one step, without a target; docs/benchmarks.md has the section",
    "sample_beside_towers": "the sample's run right after that of sample-towers; docs/sample.md says what it gave",
    "refit": "losses and accuracies; docs/sample.md has the table",
}
