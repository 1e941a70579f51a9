"""Exercises that check your answers: one module per page, named like the page without its number.

>>> from blitz_helpers.exercises import shape_arithmetic as ex
>>> ex.pooled_size.check(...)
Not attempted yet: put your answer in place of the three dots.
"""
