"""What each stage of the flow computes, streaming, for one day: the only place where the pure packages meet.

Belongs here: loops over stored batches that need a model, an explainer and a formula at once; provenance.
Does not belong here: Dagster, formulas (`stats`), SQL and files (`lake`), decisions (`decide`).
Everything here takes a `Monitor` (configuration and lake) and can be called from a notebook or the command line.
"""
