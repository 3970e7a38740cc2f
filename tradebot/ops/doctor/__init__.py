"""`tradebot doctor`: looks over everything an unattended engine depends on, and says of each what to do.

`readings` and `database` look, `checks` judge (pure), `command` joins them and prints.
"""
