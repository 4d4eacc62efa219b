"""The networks of EDM: SongUNet and DhariwalUNet, behind one of four preconditioners."""

from sid_jax.models.edm.config import (
    EDMPrecondConfig,
    IDDPMPrecondConfig,
    PrecondConfig,
    VEPrecondConfig,
    VPPrecondConfig,
)
from sid_jax.models.edm.precond import EDMPrecond, VEPrecond, VPPrecond, iDDPMPrecond

__all__ = [
    "EDMPrecond",
    "EDMPrecondConfig",
    "IDDPMPrecondConfig",
    "PrecondConfig",
    "VEPrecond",
    "VEPrecondConfig",
    "VPPrecond",
    "VPPrecondConfig",
    "iDDPMPrecond",
]
