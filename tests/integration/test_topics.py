import pytest

from streams import topics_admin
from streams.schema.errors import BrokerUnavailableError, TopicMismatchError
from streams.schema.topics import Topic

pytestmark = pytest.mark.services


async def test_topics_are_created_once_and_a_disagreement_is_loud(broker, unique):
    options = {"bootstrap_servers": broker.address}
    topic = Topic(f"{unique}.raw", "node", "profile", 2, 3_600_000)
    assert await topics_admin.apply(options, [topic]) == [topic.name]
    assert await topics_admin.apply(options, [topic]) == []
    with pytest.raises(TopicMismatchError, match="2 partitions where 3"):
        await topics_admin.apply(options, [topic], partitions=3)
    other = Topic(topic.name, "node", "profile", 2, 7_200_000)
    with pytest.raises(TopicMismatchError, match=r"retention\.ms=3600000"):
        await topics_admin.apply(options, [other])


async def test_an_absent_broker_is_one_clear_error():
    with pytest.raises(BrokerUnavailableError, match=r"127\.0\.0\.1:1"):
        await topics_admin.apply({"bootstrap_servers": "127.0.0.1:1", "request_timeout_ms": 2000})
