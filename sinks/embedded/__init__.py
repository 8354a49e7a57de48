"""The embedded store: ClickHouse's HTTP interface over the chdb engine, in one process on loopback."""
