"""Pure mathematics of attributions: edges, histograms, distances, scores, residuals.

Belongs here: arrays in, arrays or records out. Does not belong here: decisions (see `decide`), clocks, files, Dagster.
"""
