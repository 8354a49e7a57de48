-- Profile samples as the nodes counted them, their stacks, and the hourly rollup.
-- Names are unqualified on purpose: the session's database is the target.

-- Merging few parts at a time is most of what a row costs the store, so it merges many (min_parts_to_merge_at_once).
-- One row: one stack of one workload in one interval. Sorted so that the reads (one service, some hours) touch few
-- granules, and so that equal stack ids, pods and nodes stand together, which is what makes a row cost a few bytes.
CREATE TABLE IF NOT EXISTS samples
(
    time      DateTime64(3, 'UTC') CODEC(DoubleDelta, ZSTD(1)),
    cluster   LowCardinality(String) CODEC(ZSTD(1)),
    node      LowCardinality(String) CODEC(ZSTD(1)),
    namespace LowCardinality(String) CODEC(ZSTD(1)),
    pod       LowCardinality(String) CODEC(ZSTD(1)),
    container LowCardinality(String) CODEC(ZSTD(1)),
    service   LowCardinality(String) CODEC(ZSTD(1)),
    version   LowCardinality(String) CODEC(ZSTD(1)),
    type      LowCardinality(String) CODEC(ZSTD(1)),
    unit      LowCardinality(String) CODEC(ZSTD(1)),
    stack_id  UInt64 CODEC(Delta, ZSTD(1)),
    value     Int64 CODEC(ZSTD(1)),
    period    Int64 CODEC(ZSTD(1))
)
ENGINE = MergeTree
PARTITION BY toDate(time)
PRIMARY KEY (type, service, version, toStartOfHour(time))
ORDER BY (type, service, version, toStartOfHour(time), stack_id, node, pod, container, time)
TTL toDateTime(time) + INTERVAL 30 DAY
SETTINGS ttl_only_drop_parts = 1, min_parts_to_merge_at_once = 24, non_replicated_deduplication_window = 10000;

-- Each stack once, columns of its frames root first. It outlives the rollup that refers to it: the sink writes it again
-- at least once a day while it is in use.
CREATE TABLE IF NOT EXISTS stacks
(
    stack_id  UInt64 CODEC(ZSTD(1)),
    functions Array(LowCardinality(String)) CODEC(ZSTD(3)),
    files     Array(LowCardinality(String)) CODEC(ZSTD(3)),
    lines     Array(UInt32) CODEC(ZSTD(1)),
    last_seen DateTime('UTC') CODEC(Delta, ZSTD(1))
)
ENGINE = ReplacingMergeTree(last_seen)
ORDER BY stack_id
TTL last_seen + INTERVAL 430 DAY;

-- Plain strings: adding rows up costs half of what it costs with LowCardinality, whose values are hashed for each row.
CREATE TABLE IF NOT EXISTS samples_1h
(
    time      DateTime('UTC') CODEC(DoubleDelta, ZSTD(1)),
    cluster   String CODEC(ZSTD(1)),
    namespace String CODEC(ZSTD(1)),
    service   String CODEC(ZSTD(1)),
    version   String CODEC(ZSTD(1)),
    type      String CODEC(ZSTD(1)),
    unit      String CODEC(ZSTD(1)),
    stack_id  UInt64 CODEC(Delta, ZSTD(1)),
    value     Int64 CODEC(T64, ZSTD(1))
)
ENGINE = SummingMergeTree(value)
PARTITION BY toYYYYMM(time)
PRIMARY KEY (type, service, version, time)
ORDER BY (type, service, version, time, stack_id, cluster, namespace, unit)
TTL time + INTERVAL 400 DAY
SETTINGS ttl_only_drop_parts = 1, min_parts_to_merge_at_once = 24, non_replicated_deduplication_window = 10000;

-- Row for row, without GROUP BY: one block in is one block out, so that the deduplication token of an insert means the
-- same rows here at every repeat. The engine adds them up when it writes the part.
CREATE MATERIALIZED VIEW IF NOT EXISTS samples_1h_from_samples TO samples_1h AS
SELECT
    toStartOfHour(time) AS time,
    cluster,
    namespace,
    service,
    version,
    type,
    unit,
    stack_id,
    value
FROM samples;
