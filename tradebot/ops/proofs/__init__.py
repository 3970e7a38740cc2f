"""The proofs: experiments against real engine processes, whose results open one lock of the LIVE gate.

`prove` runs them, one module each; `bundle` is what they leave, `lab` and `manager` what they work with.
"""
