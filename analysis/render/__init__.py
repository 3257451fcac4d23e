"""From a document to what a person reads: HTML, a terminal, Markdown; and how numbers are written."""
