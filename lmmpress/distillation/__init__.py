"""How a pruned model learns from the teacher: the loss of Eq. 5, what is computed once, and the training loop."""
