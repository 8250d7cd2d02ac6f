"""The flow, one module per stage: each asset loads, makes one call into `flow` or a pure package, and reports.

Does not belong here: formulas, SQL, decisions, loops over rows. Stages meet in stored tables and never import
one another.
"""
