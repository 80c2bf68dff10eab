"""The operators: what each declares (light) and how it trains (torch).

``declaration``, ``builtin``, ``registry`` and ``width`` import nothing heavy; the Snakefile reads them.
"""
