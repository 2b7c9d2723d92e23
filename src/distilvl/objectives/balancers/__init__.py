"""Balancers: a step's losses in, what to multiply each by out; docs/balancers.md derives what each optimises."""

from distilvl.objectives.balancers.base import BALANCERS, Balance, Balancer, Step
from distilvl.objectives.balancers.dwa import DWABalancer
from distilvl.objectives.balancers.gradnorm import GradNormBalancer
from distilvl.objectives.balancers.official import OfficialBalancer
from distilvl.objectives.balancers.paper import PaperBalancer
from distilvl.objectives.balancers.static import StaticBalancer
from distilvl.objectives.balancers.uncertainty import UncertaintyBalancer

__all__ = [
    "BALANCERS", "Balance", "Balancer", "DWABalancer", "GradNormBalancer", "OfficialBalancer", "PaperBalancer",
    "StaticBalancer", "Step", "UncertaintyBalancer",
]  # fmt: skip
