-- What the stream worker computed. A row is a whole state: a later one (greater last_offset) replaces it.

CREATE TABLE IF NOT EXISTS hotspots
(
    window_start DateTime('UTC') CODEC(DoubleDelta, ZSTD(1)),
    window_s     UInt32 CODEC(ZSTD(1)),
    shard        Int32 CODEC(ZSTD(1)),
    first_offset Int64 CODEC(Delta, ZSTD(1)),
    last_offset  Int64 CODEC(Delta, ZSTD(1)),
    late         UInt8 CODEC(ZSTD(1)),
    cluster      LowCardinality(String) CODEC(ZSTD(1)),
    namespace    LowCardinality(String) CODEC(ZSTD(1)),
    service      LowCardinality(String) CODEC(ZSTD(1)),
    version      LowCardinality(String) CODEC(ZSTD(1)),
    type         LowCardinality(String) CODEC(ZSTD(1)),
    unit         LowCardinality(String) CODEC(ZSTD(1)),
    function     LowCardinality(String) CODEC(ZSTD(1)),
    self         Int64 CODEC(T64, ZSTD(1)),
    total        Int64 CODEC(T64, ZSTD(1))
)
ENGINE = ReplacingMergeTree(last_offset)
PARTITION BY toYYYYMM(window_start)
PRIMARY KEY (type, service, version, window_start)
ORDER BY (type, service, version, window_start, window_s, cluster, namespace, unit, function, shard, first_offset)
TTL window_start + INTERVAL 90 DAY
SETTINGS non_replicated_deduplication_window = 10000;

CREATE VIEW IF NOT EXISTS hotspots_final AS SELECT * FROM hotspots FINAL;

CREATE TABLE IF NOT EXISTS latency_windows
(
    window_start DateTime('UTC') CODEC(DoubleDelta, ZSTD(1)),
    window_s     UInt32 CODEC(ZSTD(1)),
    shard        Int32 CODEC(ZSTD(1)),
    first_offset Int64 CODEC(Delta, ZSTD(1)),
    last_offset  Int64 CODEC(Delta, ZSTD(1)),
    late         UInt8 CODEC(ZSTD(1)),
    cluster      LowCardinality(String) CODEC(ZSTD(1)),
    node         LowCardinality(String) CODEC(ZSTD(1)),
    namespace    LowCardinality(String) CODEC(ZSTD(1)),
    pod          LowCardinality(String) CODEC(ZSTD(1)),
    container    LowCardinality(String) CODEC(ZSTD(1)),
    service      LowCardinality(String) CODEC(ZSTD(1)),
    version      LowCardinality(String) CODEC(ZSTD(1)),
    probe        LowCardinality(String) CODEC(ZSTD(1)),
    operation    LowCardinality(String) CODEC(ZSTD(1)),
    buckets      Array(UInt16) CODEC(ZSTD(1)),
    counts       Array(UInt64) CODEC(ZSTD(1)),
    count        UInt64 CODEC(T64, ZSTD(1)),
    sum_ns       UInt64 CODEC(T64, ZSTD(1)),
    max_ns       UInt64 CODEC(T64, ZSTD(1)),
    period       UInt32 CODEC(T64, ZSTD(1))
)
ENGINE = ReplacingMergeTree(last_offset)
PARTITION BY toYYYYMM(window_start)
PRIMARY KEY (probe, service, version, window_start)
ORDER BY (probe, service, version, window_start, window_s, operation, cluster, node, namespace, pod, container, shard, first_offset)
TTL window_start + INTERVAL 90 DAY
SETTINGS non_replicated_deduplication_window = 10000;

CREATE VIEW IF NOT EXISTS latency_final AS SELECT * FROM latency_windows FINAL;
