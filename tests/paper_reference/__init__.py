"""Markets for comparing PAPER with `sim.paper_reference`, the second calculation.

`series` has recorded and made-up ones, `small_markets` draws them for hypothesis.
"""
