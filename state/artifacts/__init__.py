"""Artifacts, and what the database knows of them: put once, verified before use.

Who needs one sees the port (`store`); that they lie in folders is known to `folder_store` and its
two parts, and chosen in `state.folder`.

A manifest is written last, a damaged artifact is set aside and never removed, and nothing is
collected that something needs. The one place that looks at both halves of the state.
"""
