"""NNI's dispatcher, which gives its commands to the tuner in the order of their arrival.

NNI 3.0 handles final results and the ends of trials in two threads: a trial's end overtakes its large result, and the tuner
dies of an id that it no longer knows (microsoft/nni #5798, #5739). manager_js/trial_end.js starts this file in place of
`python -m nni`.
"""

from __future__ import annotations

import logging
import os
import sys


def _enqueue_in_order(self, command, data) -> None:
    """In place of MsgDispatcherBase.enqueue_command: one queue, and so one thread, for all commands."""
    self.default_command_queue.put((command, data))


def run() -> None:
    """NNI's own main, with the queue replaced."""
    here = os.path.dirname(os.path.abspath(__file__))
    # Python puts this folder first, where its check.py or space.py would stand before a tuner's own.
    sys.path[:] = [folder for folder in sys.path if os.path.abspath(folder) != here]
    from nni.__main__ import main
    from nni.runtime.msg_dispatcher_base import MsgDispatcherBase

    MsgDispatcherBase.enqueue_command = _enqueue_in_order
    try:
        main()
    except Exception as error:  # as NNI does: its log is where people look
        logging.getLogger("nni.main").exception(error)
        raise


if __name__ == "__main__":
    run()
