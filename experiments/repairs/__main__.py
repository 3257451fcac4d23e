"""python -m experiments.repairs: let nnictl of this environment repair NNI."""

import sys

from experiments.repairs import INSTALL, install

if sys.argv[1:]:
    sys.exit(f"error: {INSTALL} takes no arguments: it lets nnictl of this environment repair NNI")
print(f"{install()}: nnictl of this environment now repairs NNI")
