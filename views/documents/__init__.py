"""Views as JSON documents: what ``-o json`` and ``-o yaml`` print, a bundle and a notebook hold.

Their keys are an API. Times are ISO 8601 in UTC; what is not known is null.
"""
