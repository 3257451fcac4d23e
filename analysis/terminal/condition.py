"""How an experiment is, in a word and a remark: also what NNI's own list does not say."""

from __future__ import annotations

from ..reading import locate
from ..reading.logs import tuner_errors
from ..reading.records import Experiment


def condition(experiment: Experiment) -> tuple[str, str]:
    """("running", "done", "stopped" or "crashed", remark). Crashed: NNI's list says that its manager is at work, and that
    process is gone. The remark is "" where there is nothing to add.
    """
    entry = locate.entry_of(experiment.id, experiment.folder)
    state, remarks = experiment.state.lower(), []
    if entry and entry.get("status") in locate.ACTIVE and not locate.is_running(entry):
        state = "crashed" if state == "stopped" else state
        remarks.append(f"NNI still says {entry['status']}, but its manager (process {entry.get('pid')}) is gone")
    if state != "done":
        remarks += tuner_errors(experiment)
    return state, "; ".join(remarks)
