"""The commands, one module for each group of `tradebot --help`: usage text, registry entry, and what each does.

A command's function imports the module that does the work only when it is called: `tradebot health` does not pay for
the engine.
"""
