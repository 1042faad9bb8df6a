"""The control plane: sources, work queue, commit, executors. It never imports torch."""
