-- Which ranges of a raw partition were cut into batches, announced here before the first row of each is inserted. Kafka
-- forgets its announcements when a group is reset; with these a replay skips what the tables hold, and inserts a batch
-- that a crash had left half done again under its own token. The append times tell a topic from one of the same name
-- that was deleted.

CREATE TABLE IF NOT EXISTS batches
(
    topic        LowCardinality(String) CODEC(ZSTD(1)),
    partition    Int32 CODEC(ZSTD(1)),
    first_offset Int64 CODEC(Delta, ZSTD(1)),
    end_offset   Int64 CODEC(Delta, ZSTD(1)),
    first_append DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)),
    last_append  DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1))
)
ENGINE = ReplacingMergeTree
PARTITION BY toDate(first_append)
ORDER BY (topic, partition, first_offset, first_append)
TTL toDateTime(first_append) + INTERVAL 90 DAY
SETTINGS ttl_only_drop_parts = 1, min_parts_to_merge_at_once = 24;
