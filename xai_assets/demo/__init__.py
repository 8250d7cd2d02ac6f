"""A seeded simulator of a shadow deployment with planted, known faults, and the verdict on what was found.

Belongs here: simulated requests, labels and models; the list of planted faults; the closing table.
Does not belong here: anything the platform needs for a user's own data.
"""

from xai_assets.demo.faults import DEFAULT_FAULTS, PlantedFault
from xai_assets.demo.simulator import Simulation, simulate
from xai_assets.demo.verdict import VerdictRow, verdict

__all__ = ["DEFAULT_FAULTS", "PlantedFault", "Simulation", "VerdictRow", "simulate", "verdict"]
