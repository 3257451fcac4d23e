"""What a person reads: each report is data -> Document, which analysis.render turns into HTML, terminal text or Markdown."""
