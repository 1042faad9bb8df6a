"""The executor of a Ray cluster: an actor for each slot, which holds a worker process on its node.

Ray finds the node, starts the actor there, and says when it is gone; it keeps no record and tries
nothing again. The worker is the process that a slot of this machine would have, and knows no Ray.
Only ``cluster`` and ``actors`` import Ray, and they are imported when the settings ask for it.
"""
