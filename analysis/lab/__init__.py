"""docs/report.md: the lab report's questions again, one section a study, its numbers beside ours."""
