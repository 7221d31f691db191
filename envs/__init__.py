"""Gymnasium environments for adaptive mesh refinement.

Importing this package registers ``sciml/AMR1DAdvection-v0``, ``sciml/AMR1DPoisson-v0``,
``sciml/AMRTreeAdvection-v0``, ``sciml/AMRTriPoisson-v0`` and ``sciml/MarkingTheta-v0``. Beside them:

    families     problems            policies    classical strategies, oracles, the loop `deploy`
    training     `train_agent`       marching    `march`, the same loop for problems in time
    agents       trained policies    evaluation  `compare_policies`, at equal numbers of unknowns
"""

import gymnasium

from .families import Family, Sample, family_registry

__all__ = ["Family", "Sample", "family_registry"]

for _name, _entry in (
    ("AMR1DAdvection-v0", "environments:AdvectionEnv"),
    ("AMR1DPoisson-v0", "environments:PoissonEnv"),
    ("AMRTreeAdvection-v0", "environments:TransportEnv"),
    ("AMRTriPoisson-v0", "environments:TriangleEnv"),
    ("MarkingTheta-v0", "marking:MarkingEnv"),
):
    gymnasium.register(f"sciml/{_name}", entry_point=f"sciml.envs.{_entry}")
