"""NNI experiments: checked, started, watched, resumed, explained. Names the trial by its command line only.

The .yml files are the experiments; `config` reads one with the command line's changes. `check` (with `space`) says
what is wrong with it before anything runs, `doctor` what is wrong with the machine, each as `findings`. `launch` starts and
resumes, `watch` follows, `diagnose` says from one look at an experiment whether it is well, `why` explains a failure from `logs`.
`replicate` trains configurations times seeds for `studies` and `confirm`. `nni` is the file that talks to NNI's manager,
`repairs` corrects it, `tuners` are seeded ones that it can run.
"""
