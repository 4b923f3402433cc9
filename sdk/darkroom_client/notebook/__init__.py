"""How jobs stand in a notebook: a bar while they run, their pictures when they are done.

Nothing here imports IPython, unless it is there already and a kernel runs.
"""
