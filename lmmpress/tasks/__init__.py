"""What pods run: the body of each task, its parameters and the profile of a cluster."""
