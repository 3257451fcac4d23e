"""What a person reads: each report is data -> Document, which analysis.render turns into HTML, terminal text or Markdown.

`comparison`, `confirmation`, `study` and `lab_report` are pages, `experiment` and `best` what `show`, `list` and `best` print.
`figures` draws what `series` computes; `facts` and `per_seed` are shared tables; `lab_numbers` are the lab report's own.
"""
