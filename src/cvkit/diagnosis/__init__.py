"""Diagnosis: what is wrong with a training program, seen before its first epoch.

====================  ========================================================================================
``finding``           ``Finding`` and ``Report``
``table``             the table of checks, and how one is filed: ``check``
``probe``             what a check may look at: ``Probe``
``trace``             one batch through the model, watched
``examine``           the examination: which check runs when
``crash``             a step that fails: the operation, the line, what to do; ``mending`` knows the layers
``checks``            the checks, a file for each kind of mistake
====================  ========================================================================================

Nothing here knows the loop: whoever trains hands over a probe.
"""

import cvkit.diagnosis.checks  # noqa: F401  # they file themselves into the table
from cvkit.diagnosis.finding import Finding, Report
from cvkit.diagnosis.probe import Monitored, Probe, Settings, Side
from cvkit.diagnosis.table import TABLE, Check, check_codes

__all__ = ["TABLE", "Check", "Finding", "Monitored", "Probe", "Report", "Settings", "Side", "check_codes"]
