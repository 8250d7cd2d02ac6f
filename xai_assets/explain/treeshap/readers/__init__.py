"""Readers: from a library's model, or its file, to a `TreeEnsemble`.

Belongs here: one module per library, what its fields mean, how its splits become the one form.
Does not belong here: the form itself (see `ensemble`), predictions (see `margin`), attributions.

A file's content is not trusted: lengths, indices and the shape of the trees are checked before anything walks them.
"""
