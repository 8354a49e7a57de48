"""The commands of this stage: ``perfstream profile`` and ``perfstream dashboards``."""

from dashboards.coverage_command import coverage
from dashboards.dashboard_commands import dashboards
from dashboards.profile_commands import profile
from dashboards.web.command import web

profile.add_command(coverage)
profile.add_command(web)

__all__ = ["dashboards", "profile"]
