"""Kafka to ClickHouse: tables and migrations, the consumer, the embedded server."""
