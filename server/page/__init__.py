"""The live page: one HTML page on the same server, and what it reads and does there.

Each panel is one module here with its routes, and one module of JavaScript of the same name in
``static/panels/``; ``panels`` lists them. What is shown are the read models and the tables of the
commands, and what is done is what the commands do: the words are theirs. The page holds no truth:
a stream tells it what changed, and it reads that again.
"""
