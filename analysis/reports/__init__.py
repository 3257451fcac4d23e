"""What a person reads: each report is data -> Document, which analysis.render turns into HTML, terminal text or Markdown.

`comparison`, `confirmation`, `study` and `lab_report` are pages, `experiment` is what `show`, `list` and `best` print.
`figures` draws what `series` computes; `facts` has the shared tables; `lab_numbers` are the lab report's own.
"""
