"""How fast, how much memory: each file measures one subject and adds its figures to a Report (table.py).

`python -m benchmarks` (make bench) runs the parts of docs/performance.md; epoch.py is also `make profile`, analysis.py
`make bench-analysis`, gpu_check.py `make gpu-check`; shared_design.py is one figure of docs/log.md. surface*.py measure trainings over a
grid of hyperparameters, answers.py and replay*.py simulate searches on them (docs/which-search.md).
"""
