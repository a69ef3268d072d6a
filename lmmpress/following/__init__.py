"""What a run on a cluster has come to, for people: its steps in the store, and a line for each part and decision."""
