"""What `sim.paper_reference`, the second calculation of PAPER, is tested and compared with.

`series` has recorded and made-up markets, `schedule` deterministic orders for them, `small_markets` draws both for
hypothesis, `invariants` has what must hold for every outcome.
"""
