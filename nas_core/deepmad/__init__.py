"""DeepMAD (arXiv 2303.02165): a convolutional network designed by solving an analytic program, with a proof.

``structure`` and ``domain`` say what a network is and may be, ``formulas``
rates it in closed form, ``solver.design`` finds the best one and bounds every
other (``tree`` over ``concave``, ``barrier``, ``channels``, ``polish``), ``drawings``
draws it, and only ``realise``, which builds the network, needs torch.
"""
