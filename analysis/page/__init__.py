"""The page of a comparison, and what all pages share: figures, tables, templates, style."""
