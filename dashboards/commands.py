"""The commands of this stage: ``perfstream profile`` and ``perfstream dashboards``."""

from dashboards.dashboard_commands import dashboards
from dashboards.profile_commands import profile

__all__ = ["dashboards", "profile"]
