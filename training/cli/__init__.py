"""The command line of training: from what a person types to a resolved, checked configuration in a run folder.

overrides.py reads the line, compose.py turns it into a configuration (with sweep.py
the only files that know Hydra), resume.py into that of an old run; checks.py refuses what cannot be trained, dry_run.py
and page.py print, main.py holds the order.
Importing it costs no torch, so that --help answers at once. Only run_train.py and apps import it.
"""

from training.cli.main import main

__all__ = ["main"]
