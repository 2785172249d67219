"""What only aiotrack knows, for Prometheus: how recording is, and how the fleet is.

Metrics of tasks are TaskIQ's own `PrometheusMiddleware`'s. Needs the extra ``metrics``.
"""

from __future__ import annotations

from aiotrack.metrics.feature import Metrics
from aiotrack.metrics.fleet import exposition

__all__ = ["Metrics", "exposition"]
