#include "server/cli/server_url.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <stdexcept>

namespace mobius {
namespace {

TEST(ServerUrl, ServerAndOpenAiHabitMeanTheSame) {
  for (const char* text : {"http://host:8000", "http://host:8000/", "http://host:8000/v1",
                           "http://host:8000/v1/", "host:8000", "host:8000/v1"}) {
    const ServerUrl url = parse_server_url(text);
    EXPECT_FALSE(url.tls) << text;
    EXPECT_EQ(url.host, "host") << text;
    EXPECT_EQ(url.port, "8000") << text;
    EXPECT_EQ(url.base, "") << text;
    EXPECT_EQ(url.authority(), "host:8000") << text;
  }
}

TEST(ServerUrl, DefaultPortsAndBases) {
  const ServerUrl url = parse_server_url("https://api.example.org/llm/v1");
  EXPECT_TRUE(url.tls);
  EXPECT_EQ(url.port, "443");
  EXPECT_EQ(url.base, "/llm");
  EXPECT_EQ(url.authority(), "api.example.org");
  EXPECT_EQ(parse_server_url("http://host").port, "80");
  EXPECT_EQ(parse_server_url("http://host").authority(), "host");
}

TEST(ServerUrl, AddressesOfIpV6) {
  const ServerUrl url = parse_server_url("http://[::1]:8000/v1");
  EXPECT_EQ(url.host, "::1");
  EXPECT_EQ(url.authority(), "[::1]:8000");
  EXPECT_EQ(parse_server_url("https://[::1]").authority(), "[::1]");
}

TEST(ServerUrl, RefusesWhatIsNone) {
  for (const char* text :
       {"", "http://", "ftp://host", "http://:8000", "http://host:", "http://host:0",
        "http://host:65536", "http://host:80x", "http://user@host", "http://host?q=1",
        "http://host/#x", "http://ho st", "http://host\r\nX: y", "http://[::1", "http://[::1]8000",
        "http://[::1]:", "http://::1"}) {
    EXPECT_THROW(parse_server_url(text), std::runtime_error) << text;
  }
}

}  // namespace
}  // namespace mobius
