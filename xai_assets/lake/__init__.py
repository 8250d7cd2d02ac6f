"""Tables as files: names, columns, types and units; reading and replacing partitions; every SQL statement.

Does not belong here: formulas, decisions, models, Dagster.
"""
