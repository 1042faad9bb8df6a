"""Results made up for readers: the tables of a terminal, the page, the evidence bundle.

What is shown comes from ``views``; here it gets columns, pictures and files. Nothing here writes to
a state folder, starts a job or loads a model. What is missing is shown as missing, with the reason,
never as zero.
"""
