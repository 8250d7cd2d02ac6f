"""Figures: each is a function of plain arrays and a title that states the finding.

Belongs here: how a finding is drawn. Does not belong here: computing it (see `stats`, `flow`), reading tables,
pyplot's global state.
"""
