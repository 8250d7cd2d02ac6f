"""Drift detection beside its peers: the same streams through this package and through the rules in common use."""
