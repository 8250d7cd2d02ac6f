"""Dagster vocabulary: resources, jobs, schedules, sensors, checks. No arithmetic.

A sensor only wraps a pure decision (see `decide`); a failed read is a skip with its reason, never "nothing new".
"""
