"""Every named query, the Grafana dashboards as code, and the reading commands."""
