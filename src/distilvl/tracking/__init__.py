"""Curves of a run sent to trackers that people already use, each through its own library; off unless asked for."""

from __future__ import annotations

from distilvl.tracking.loading import TRACKERS, load_trackers
from distilvl.tracking.tracker import TrackedRun, Tracker
from distilvl.tracking.tracking import Tracking

__all__ = ["TRACKERS", "TrackedRun", "Tracker", "Tracking", "load_trackers"]
