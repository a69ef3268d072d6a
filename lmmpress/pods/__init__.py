"""The pods of a run, for people: what they wait for, why one failed, and what the run has come to."""
