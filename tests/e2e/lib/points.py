"""Tests that kill penstock at a named place need a binary that was built with PEN_KILL_POINTS."""

import os
import pathlib

import pytest

from .program import binary

HAS_POINTS = os.path.exists(binary()) and b"PENSTOCK_KILL_AT" in pathlib.Path(binary()).read_bytes()
needs_points = pytest.mark.skipif(not HAS_POINTS, reason="this binary was built without PEN_KILL_POINTS")
