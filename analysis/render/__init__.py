"""From a document to what a person reads: `html`, `terminal` or `markdown`; `formats` says how numbers are written.

`document` has the blocks that all reports are made of.
"""
