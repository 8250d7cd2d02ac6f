"""One loader per kind of artifact.

Belongs here: what each library's file is, how it is read without running foreign code, and how it predicts.
Does not belong here: where the file lies, its hash and pin (see `artifact`), agreement with the configured features
(see `features`).
"""
