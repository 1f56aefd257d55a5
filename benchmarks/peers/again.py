"""The hand-written loop against itself: what it shows is noise."""

from __future__ import annotations

from peers.work import hand_written as prepare

__all__ = ["prepare"]
