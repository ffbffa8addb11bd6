"""Repairs of a finished checkpoint: index, declarations, exclude list, side files; scales of fused layers on request.

`propose` looks and names every change; `apply` writes a new folder or keeps a backup. A payload byte is never changed.
`layouts` writes a checkpoint anew in another layout, its payload as it was.
"""

from publisher.repair.apply import in_place, into
from publisher.repair.change import Change
from publisher.repair.proposal import REPAIRS, Proposal, propose

__all__ = ["REPAIRS", "Change", "Proposal", "in_place", "into", "propose"]
