#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <nlohmann/json.hpp>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>
#include <zmq.hpp>

#include "server/kv_events/kv_event_message.h"
#include "server/kv_events/kv_event_publisher.h"

namespace mobius {
namespace {

using Json = nlohmann::json;
using testing::HasSubstr;
using testing::SizeIs;

constexpr std::chrono::milliseconds kLongest{10000};

/// The parts of the next message, none if there is none in time.
std::vector<std::string> receive(zmq::socket_t& socket) {
  std::vector<std::string> parts;
  bool more = true;
  while (more) {
    zmq::message_t part;
    if (!socket.recv(part, zmq::recv_flags::none)) return {};
    parts.push_back(part.to_string());
    more = part.more();
  }
  return parts;
}

class KvEvents : public testing::Test {
 protected:
  static KvEventOptions options() {
    KvEventOptions options;
    options.endpoint = "tcp://127.0.0.1:*";
    options.replay_endpoint = "tcp://127.0.0.1:*";
    options.topic = "kv";
    options.page_tokens = 2;
    return options;
  }

  zmq::socket_t subscriber(const KvEventPublisher& publisher, const std::string& topic) {
    zmq::socket_t socket(context_, zmq::socket_type::sub);
    socket.set(zmq::sockopt::rcvtimeo, static_cast<int>(kLongest.count()));
    socket.set(zmq::sockopt::linger, 0);
    socket.set(zmq::sockopt::subscribe, topic);
    socket.connect(publisher.endpoint());
    return socket;
  }

  /// Everything from batch `from` on that is kept, and the end.
  std::vector<std::vector<std::string>> replay(const KvEventPublisher& publisher,
                                               const std::string& from) {
    zmq::socket_t socket(context_, zmq::socket_type::req);
    socket.set(zmq::sockopt::rcvtimeo, static_cast<int>(kLongest.count()));
    socket.set(zmq::sockopt::linger, 0);
    socket.connect(publisher.replay_endpoint());
    socket.send(zmq::buffer(from), zmq::send_flags::none);
    // A REQ socket takes one reply; a DEALER takes them all.
    return {receive(socket)};
  }

  std::vector<std::vector<std::string>> replay_all(const KvEventPublisher& publisher,
                                                   const std::string& from) {
    zmq::socket_t socket(context_, zmq::socket_type::dealer);
    socket.set(zmq::sockopt::rcvtimeo, static_cast<int>(kLongest.count()));
    socket.set(zmq::sockopt::linger, 0);
    socket.connect(publisher.replay_endpoint());
    socket.send(zmq::const_buffer(), zmq::send_flags::sndmore);
    socket.send(zmq::buffer(from), zmq::send_flags::none);
    std::vector<std::vector<std::string>> replies;
    do {
      replies.push_back(receive(socket));
    } while (replies.back().size() == 3 && parse_kv_event_number(replies.back()[1]) >= 0);
    return replies;
  }

  /// Publishes until the subscriber, whose connection takes a moment, gets something.
  std::vector<std::string> first_message(KvEventPublisher& publisher, zmq::socket_t& socket) {
    socket.set(zmq::sockopt::rcvtimeo, 50);
    std::vector<std::string> parts;
    const auto deadline = std::chrono::steady_clock::now() + kLongest;
    while (parts.empty() && std::chrono::steady_clock::now() < deadline) {
      publisher.publish({PageRemoved{99}});
      parts = receive(socket);
    }
    return parts;
  }

  zmq::context_t context_;
};

TEST_F(KvEvents, BatchHasTheFormOfVllm) {
  const std::vector<CacheEvent> events = {
      PageStored{18446744073709551615ULL, {}, {5, 6}},
      PageStored{7, 18446744073709551615ULL, {8, 9}},
      PageRemoved{7},
  };
  const Json batch = Json::from_msgpack(kv_event_message(events, 2, 12.5));
  EXPECT_EQ(batch, Json::parse(R"([12.5, [
    ["BlockStored", [18446744073709551615], null, [5, 6], 2, null, "GPU"],
    ["BlockStored", [7], 18446744073709551615, [8, 9], 2, null, "GPU"],
    ["BlockRemoved", [7], "GPU"]], 0])"));
  EXPECT_EQ(Json::from_msgpack(kv_cleared_message(1)),
            Json::parse(R"([1.0, [["AllBlocksCleared"]], 0])"));
}

TEST_F(KvEvents, NumbersAreEightBytesMostSignificantFirst) {
  EXPECT_EQ(kv_event_number(258), std::string("\0\0\0\0\0\0\1\2", 8));
  EXPECT_EQ(kv_event_number(-1), std::string(8, '\xFF'));
  EXPECT_EQ(parse_kv_event_number(kv_event_number(1234567890123)), 1234567890123);
  EXPECT_EQ(parse_kv_event_number(kv_event_number(-1)), -1);
  EXPECT_EQ(parse_kv_event_number("1234567"), -1);
  EXPECT_EQ(parse_kv_event_number(""), -1);
}

TEST_F(KvEvents, SubscribersOfTheTopicGetBatchesInOrder) {
  KvEventPublisher publisher(options());
  zmq::socket_t socket = subscriber(publisher, "kv");
  zmq::socket_t other = subscriber(publisher, "weather");
  const std::vector<std::string> first = first_message(publisher, socket);
  ASSERT_THAT(first, SizeIs(3));
  EXPECT_EQ(first[0], "kv");
  publisher.publish({PageStored{1, {}, {3, 4}}});
  socket.set(zmq::sockopt::rcvtimeo, static_cast<int>(kLongest.count()));
  std::int64_t number = parse_kv_event_number(first[1]);
  Json events;
  do {
    const std::vector<std::string> next = receive(socket);
    ASSERT_THAT(next, SizeIs(3));
    EXPECT_EQ(parse_kv_event_number(next[1]), ++number);
    events = Json::from_msgpack(next[2])[1];
  } while (events[0][0] == "BlockRemoved");
  EXPECT_EQ(events, Json::parse(R"([["BlockStored", [1], null, [3, 4], 2, null, "GPU"]])"));
  other.set(zmq::sockopt::rcvtimeo, 50);
  EXPECT_THAT(receive(other), SizeIs(0));
}

TEST_F(KvEvents, ReplayBeginsWhereAskedAndSaysWhereItEnds) {
  KvEventPublisher publisher(options());
  publisher.publish({PageStored{1, {}, {3, 4}}});
  publisher.publish({PageRemoved{1}});
  const auto all = replay_all(publisher, kv_event_number(0));
  ASSERT_THAT(all, SizeIs(4));
  for (std::size_t i = 0; i < 3; ++i) {
    ASSERT_THAT(all[i], SizeIs(3));
    EXPECT_EQ(all[i][0], "");
    EXPECT_EQ(parse_kv_event_number(all[i][1]), static_cast<std::int64_t>(i));
  }
  EXPECT_EQ(Json::from_msgpack(all[0][2])[1], Json::parse(R"([["AllBlocksCleared"]])"));
  EXPECT_EQ(Json::from_msgpack(all[2][2])[1], Json::parse(R"([["BlockRemoved", [1], "GPU"]])"));
  EXPECT_EQ(all[3], (std::vector<std::string>{"", std::string(8, '\xFF'), ""}));
  EXPECT_THAT(replay_all(publisher, kv_event_number(2)), SizeIs(2));
  EXPECT_THAT(replay_all(publisher, kv_event_number(1000)), SizeIs(1));
  // The socket of vLLM's example: its one reply is the first batch.
  EXPECT_EQ(replay(publisher, kv_event_number(2))[0],
            (std::vector<std::string>{kv_event_number(2), all[2][2]}));
}

TEST_F(KvEvents, ReplayKeepsTheLatest) {
  KvEventOptions few = options();
  few.buffer_batches = 2;
  KvEventPublisher publisher(few);
  for (std::uint64_t i = 0; i < 5; ++i) publisher.publish({PageRemoved{i}});
  const auto all = replay_all(publisher, kv_event_number(0));
  ASSERT_THAT(all, SizeIs(3));
  EXPECT_EQ(parse_kv_event_number(all[0][1]), 4);
  EXPECT_EQ(parse_kv_event_number(all[1][1]), 5);
}

TEST_F(KvEvents, ReplayOfManyBatchesIsWhole) {
  // More than ZeroMQ keeps for one peer unless told otherwise.
  constexpr std::uint64_t kBatches = 9000;
  KvEventPublisher publisher(options());
  for (std::uint64_t i = 0; i < kBatches; ++i) publisher.publish({PageRemoved{i}});
  EXPECT_THAT(replay_all(publisher, kv_event_number(0)), SizeIs(1 + kBatches + 1));
}

TEST_F(KvEvents, WhoSendsMoreThanARequestIsDisconnected) {
  KvEventPublisher publisher(options());
  zmq::socket_t socket(context_, zmq::socket_type::dealer);
  socket.set(zmq::sockopt::linger, 0);
  socket.set(zmq::sockopt::reconnect_ivl, -1);
  socket.connect(publisher.replay_endpoint());
  socket.send(zmq::const_buffer(), zmq::send_flags::sndmore);
  socket.send(zmq::buffer(std::string(1U << 20U, 'x')), zmq::send_flags::none);
  socket.send(zmq::const_buffer(), zmq::send_flags::sndmore);
  socket.send(zmq::buffer(kv_event_number(0)), zmq::send_flags::none);
  socket.set(zmq::sockopt::rcvtimeo, 200);
  EXPECT_THAT(receive(socket), SizeIs(0));
  EXPECT_THAT(replay_all(publisher, kv_event_number(0)), SizeIs(2));
}

TEST_F(KvEvents, WhatIsNoRequestIsPassedOver) {
  KvEventPublisher publisher(options());
  zmq::socket_t socket(context_, zmq::socket_type::dealer);
  socket.set(zmq::sockopt::linger, 0);
  socket.connect(publisher.replay_endpoint());
  socket.send(zmq::buffer(std::string("hello")), zmq::send_flags::none);
  socket.send(zmq::const_buffer(), zmq::send_flags::sndmore);
  socket.send(zmq::buffer(std::string("short")), zmq::send_flags::none);
  socket.send(zmq::const_buffer(), zmq::send_flags::sndmore);
  socket.send(zmq::buffer(kv_event_number(-5)), zmq::send_flags::none);
  EXPECT_THAT(replay_all(publisher, kv_event_number(0)), SizeIs(2));
}

TEST_F(KvEvents, AnAddressInUseIsNamed) {
  const KvEventPublisher first(options());
  KvEventOptions second = options();
  second.endpoint = first.endpoint();
  try {
    const KvEventPublisher publisher(second);
    FAIL() << "was bound twice";
  } catch (const std::runtime_error& error) {
    EXPECT_THAT(error.what(), HasSubstr("kv_events.endpoint: \"" + first.endpoint()));
  }
}

}  // namespace
}  // namespace mobius
