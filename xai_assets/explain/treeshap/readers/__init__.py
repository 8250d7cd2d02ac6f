"""Readers: each turns one library's models into a `TreeEnsemble`."""
