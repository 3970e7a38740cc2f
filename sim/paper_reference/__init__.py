"""A second calculation of what orders become in PAPER, to hold the program against.

Plain Python with fractions, written from the rules in words and before the program's venue was. It imports nothing of
tradebot and shares no text with it. It is slow on purpose: every print walks all open orders, nothing is remembered
that can be calculated again.

`values` has what goes in and comes out, `market` what prints teach (event time, quote, tick size, sizes), `orders` the
life of one order, `account` the money, `entry` what is refused, `calculation` the order of events at one print.
`invariants` has what must hold for every outcome, `schedule` orders of every kind for any market.
"""
