"""The prefix cache's changes over ZeroMQ, read with the types that vLLM's subscribers use."""

import time

import msgspec
import pytest
import zmq

PAGE = 128
END = (-1).to_bytes(8, "big", signed=True)


class Event(msgspec.Struct, array_like=True, omit_defaults=True, gc=False, tag=True):
    pass


class BlockStored(Event):
    block_hashes: list[int]
    parent_block_hash: int | None
    token_ids: list[int]
    block_size: int
    lora_id: int | None
    medium: str | None = None


class BlockRemoved(Event):
    block_hashes: list[int]
    medium: str | None = None


class AllBlocksCleared(Event):
    pass


class EventBatch(msgspec.Struct, array_like=True, omit_defaults=True, gc=False):
    ts: float
    events: list[BlockStored | BlockRemoved | AllBlocksCleared]
    data_parallel_rank: int | None = None


DECODER = msgspec.msgpack.Decoder(EventBatch)


class Subscriber:
    """What the server published so far, by asking for all of it again."""

    def __init__(self, context, endpoint, replay_endpoint):
        self.context, self.replay_endpoint = context, replay_endpoint
        self.live = context.socket(zmq.SUB)
        self.live.setsockopt_string(zmq.SUBSCRIBE, "kv-events")
        self.live.connect(endpoint)

    def batches(self, first=0):
        socket = self.context.socket(zmq.DEALER)
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.RCVTIMEO, 60000)
        socket.connect(self.replay_endpoint)
        socket.send_multipart([b"", first.to_bytes(8, "big")])
        found = []
        while True:
            _, number, payload = socket.recv_multipart()
            if number == END:
                socket.close()
                return found
            found.append((int.from_bytes(number, "big"), DECODER.decode(payload)))

    def events(self):
        return [event for _, batch in self.batches() for event in batch.events]

    def wait_for(self, condition):
        deadline = time.monotonic() + 60
        while not condition(self.events()):
            assert time.monotonic() < deadline, self.events()
            time.sleep(0.05)


@pytest.fixture
def subscribe(tmp_path):
    context = zmq.Context()
    endpoints = [f"ipc://{tmp_path}/kv", f"ipc://{tmp_path}/replay"]
    yield {"kv_events.endpoint": endpoints[0], "kv_events.replay_endpoint": endpoints[1]}, (
        lambda: Subscriber(context, *endpoints))
    context.destroy(linger=0)


def prompt_of(seed, words=300):
    return " ".join(f"word{seed * 1000 + i}" for i in range(words))


def complete(server, prompt):
    status, answer = server.complete(prompt, max_tokens=1)
    assert status == 200, answer
    return answer["usage"]


def stored(events):
    return [event for event in events if isinstance(event, BlockStored)]


def test_pages_of_a_prompt_are_published_as_a_chain(start_server, subscribe):
    settings, subscriber_of = subscribe
    server = start_server(**settings)
    subscriber = subscriber_of()
    before = time.time()
    prompt = prompt_of(1)
    tokens = server.post("/tokenize", {"prompt": prompt})[1]["tokens"]
    pages = len(tokens) // PAGE
    assert pages >= 3
    complete(server, prompt)
    subscriber.wait_for(lambda events: len(stored(events)) >= pages)
    batches = subscriber.batches()
    assert [number for number, _ in batches] == list(range(len(batches)))
    assert batches[0][1].events == [AllBlocksCleared()]
    assert all(before - 60 < batch.ts < time.time() + 1 for _, batch in batches)
    chain = stored(subscriber.events())
    assert len(chain) == pages
    assert sum((event.token_ids for event in chain), []) == tokens[:pages * PAGE]
    assert [event.parent_block_hash for event in chain] == [None] + [e.block_hashes[0] for e in chain[:-1]]
    assert {(event.block_size, event.lora_id, event.medium) for event in chain} == {(PAGE, None, "GPU")}
    assert len({event.block_hashes[0] for event in chain}) == pages


def test_what_is_cached_already_is_not_published_again(start_server, subscribe):
    settings, subscriber_of = subscribe
    server = start_server(**settings)
    subscriber = subscriber_of()
    prompt = prompt_of(2)
    complete(server, prompt)
    usage = complete(server, prompt)
    assert usage["prompt_tokens_details"]["cached_tokens"] > 0
    longer = prompt + " " + prompt_of(3)
    complete(server, longer)
    pages = len(server.post("/tokenize", {"prompt": longer})[1]["tokens"]) // PAGE
    subscriber.wait_for(lambda events: len(stored(events)) >= pages)
    assert len(stored(subscriber.events())) == pages


def test_evicted_pages_are_published_tail_first(start_server, subscribe):
    settings, subscriber_of = subscribe
    # Room for few of the prompts.
    server = start_server(**settings, **{"kv.bytes": 4 << 20, "model.max_context": 3900})
    subscriber = subscriber_of()
    seed = 10
    deadline = time.monotonic() + 120
    while not any(isinstance(event, BlockRemoved) for event in subscriber.events()):
        assert time.monotonic() < deadline
        complete(server, prompt_of(seed))
        seed += 1
    cached = {}
    for event in subscriber.events():
        if isinstance(event, BlockStored):
            (name,) = event.block_hashes
            assert name not in cached
            assert event.parent_block_hash is None or event.parent_block_hash in cached
            cached[name] = event.parent_block_hash
        elif isinstance(event, BlockRemoved):
            for name in event.block_hashes:
                assert name not in cached.values(), "a page went before the one behind it"
                del cached[name]


def test_live_subscribers_get_batches_with_topic_and_number(start_server, subscribe):
    settings, subscriber_of = subscribe
    server = start_server(**settings)
    subscriber = subscriber_of()
    subscriber.live.setsockopt(zmq.RCVTIMEO, 500)
    for seed in range(100, 200):  # a subscription takes a moment
        complete(server, prompt_of(seed))
        try:
            topic, number, payload = subscriber.live.recv_multipart()
            break
        except zmq.Again:
            continue
    assert topic == b"kv-events"
    first = int.from_bytes(number, "big")
    assert subscriber.batches(first)[0] == (first, DECODER.decode(payload))


def test_nothing_is_published_unless_asked_for(server):
    assert not any("kv_events" in line for line in server.log.read_text().splitlines())
