"""Balancers: a step's losses in, what to multiply each by out; docs/balancers.md derives what each optimises."""

from __future__ import annotations

from distilvl.objectives.balancers.base import BALANCERS, Balance, Balancer, Step
from distilvl.objectives.balancers.learnt import GradNormBalancer, UncertaintyBalancer
from distilvl.objectives.balancers.paper import DWABalancer, OfficialBalancer, PaperBalancer, StaticBalancer

__all__ = [
    "BALANCERS", "Balance", "Balancer", "DWABalancer", "GradNormBalancer", "OfficialBalancer", "PaperBalancer",
    "StaticBalancer", "Step", "UncertaintyBalancer",
]  # fmt: skip
