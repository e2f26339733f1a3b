"""The field's own measures: small pure functions, arrays in, floats or small frozen records out.

Each says in its docstring whose measure it is and, where an original program exists, that a test proves the two equal.
"""
