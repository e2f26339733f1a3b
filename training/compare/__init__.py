"""`tidewarden compare`: which cell, how many layers, how wide? Answered with the user's own data.

A file per step, in the order of a comparison:

over         what is to be compared: keys, values, and the combinations that can be built
truth        streams of which it is known what is wrong: the user's labels, or faults put in on purpose
plan         what the budget allows: every combination, or a search among them
search       optuna's search, pruned early
candidate    one candidate from configuration to figures, by the same steps as `train` and `evaluate`
processes    a process for each candidate, a few at a time
finding      what came of a candidate: one small file, which `--resume` takes as it is
costs        microseconds and bytes per stream, all candidates in turn
choose       the cheapest of those that are as good as the best, and why
run          all of it, in order
report, drawing, output   what is left behind
"""
