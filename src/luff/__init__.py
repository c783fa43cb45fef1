"""luff: chaos experiments for Istio meshes, for test traffic only, with the routes always put back."""

from __future__ import annotations

__version__ = "0.1.0"
