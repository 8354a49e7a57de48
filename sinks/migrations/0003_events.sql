-- Single events of the nodes, and the accounting of every raw message.

CREATE TABLE IF NOT EXISTS events
(
    time       DateTime64(9, 'UTC') CODEC(Delta, ZSTD(1)),
    cluster    LowCardinality(String) CODEC(ZSTD(1)),
    node       LowCardinality(String) CODEC(ZSTD(1)),
    namespace  LowCardinality(String) CODEC(ZSTD(1)),
    pod        LowCardinality(String) CODEC(ZSTD(1)),
    container  LowCardinality(String) CODEC(ZSTD(1)),
    service    LowCardinality(String) CODEC(ZSTD(1)),
    version    LowCardinality(String) CODEC(ZSTD(1)),
    kind       LowCardinality(String) CODEC(ZSTD(1)),
    pid        UInt32 CODEC(ZSTD(1)),
    ppid       UInt32 CODEC(ZSTD(1)),
    uid        UInt32 CODEC(ZSTD(1)),
    comm       LowCardinality(String) CODEC(ZSTD(1)),
    result     Int32 CODEC(ZSTD(1)),
    latency_ns UInt64 CODEC(T64, ZSTD(1)),
    detail     String CODEC(ZSTD(1)),
    attributes Map(LowCardinality(String), String) CODEC(ZSTD(1))
)
ENGINE = MergeTree
PARTITION BY toDate(time)
ORDER BY (kind, service, toStartOfHour(time), node, time)
TTL toDateTime(time) + INTERVAL 30 DAY
SETTINGS ttl_only_drop_parts = 1, non_replicated_deduplication_window = 10000;

-- One row for each raw message that was stored: published = stored + lost. The offset identifies the message.
CREATE TABLE IF NOT EXISTS intervals
(
    time        DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)),
    end_time    DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)),
    cluster     LowCardinality(String) CODEC(ZSTD(1)),
    node        LowCardinality(String) CODEC(ZSTD(1)),
    collector   LowCardinality(String) CODEC(ZSTD(1)),
    schema      LowCardinality(String) CODEC(ZSTD(1)),
    producer    LowCardinality(String) CODEC(ZSTD(1)),
    sequence    UInt64 CODEC(Delta, ZSTD(1)),
    rows        UInt64 CODEC(T64, ZSTD(1)),
    events      UInt64 CODEC(T64, ZSTD(1)),
    lost        UInt64 CODEC(T64, ZSTD(1)),
    clamped     UInt64 CODEC(ZSTD(1)),
    topic       LowCardinality(String) CODEC(ZSTD(1)),
    partition   Int32 CODEC(ZSTD(1)),
    offset      Int64 CODEC(Delta, ZSTD(1)),
    append_time DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1))
)
ENGINE = ReplacingMergeTree
PARTITION BY toDate(append_time)
ORDER BY (topic, partition, offset)
TTL toDateTime(append_time) + INTERVAL 90 DAY
SETTINGS ttl_only_drop_parts = 1, non_replicated_deduplication_window = 10000;
