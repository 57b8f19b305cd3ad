"""Convolution that skips zeros, on CPU: see `optimize_` and `SparseConv2d`.

>>> import dnnjpeg.sparse
>>> report = dnnjpeg.sparse.optimize_(model.eval(), real_pictures)  # measures, and replaces layers that gain
>>> report.plan.save("plan.json")
>>> dnnjpeg.sparse.restore_(model)
"""

from dnnjpeg.sparse.module import SparseConv2d
from dnnjpeg.sparse.plan import Plan, apply_, restore_
from dnnjpeg.sparse.report import Report
from dnnjpeg.sparse.select import optimize_

__all__ = ["Plan", "Report", "SparseConv2d", "apply_", "optimize_", "restore_"]
