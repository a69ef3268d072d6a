"""The parts of a step: importance, prune, distil, evaluate; and what is measured before the first and after the last.

Each part is named by a hash of what its result depends on and nothing else, and its result is stored under that name.
Doing it again finds the result: that is how a killed run resumes, a retried task costs nothing, and two ways of
scheduling the same plan reach the same answers.
"""
