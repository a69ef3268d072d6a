"""The parts of a step (importance, prune, distil, evaluate), and the measurements before the first and after the last.

The name of a part is a hash of everything that its result depends on, and of nothing else. The result is stored under
this name, and a repeated part reads it from the store. So a killed run resumes, a retried task costs nothing, and two
ways of scheduling the same plan give the same results.
"""
