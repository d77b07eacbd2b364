#include "data/argument_order.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "data/check.h"
#include "data/read.h"

namespace thimble {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

std::vector<Tool> play() {
  return parse_tools(
      R"([{"name": "play", "parameters": {"type": "object", "properties": {"artist": {"type": "string"},
    "service": {"type": "string"}, "track": {"type": "string"}, "volume": {"type": "integer"}}}}])",
      "tools");
}

const char* const kTrackArtist =
    "{\"query\": \"play Help by the Beatles\", \"calls\": [{\"name\": \"play\", \"arguments\": {\"artist\": \"the "
    "beatles\", \"track\": \"help\"}}]}\n";
const char* const kServiceTrack =
    "{\"query\": \"on Deezer, Yesterday at 7\", \"calls\": [{\"name\": \"play\", \"arguments\": {\"service\": "
    "\"Deezer\", \"track\": \"Yesterday\", \"volume\": 7}}]}\n";

TEST(ArgumentOrders, CountPairsAsRequestsNameThem) {
  const auto rows = parse_rows(std::string(kTrackArtist) + kServiceTrack, "t");
  const auto orders = argument_orders(rows, play());
  ASSERT_EQ(orders.size(), 1u);
  EXPECT_EQ(orders[0].tool, "play");
  EXPECT_EQ(orders[0].pairs, 4u);  // track artist; service track, service volume, track volume
  EXPECT_EQ(orders[0].in_order, 3u);
  EXPECT_EQ(orders[0].in_better_order, 4u);
  EXPECT_THAT(orders[0].better, ElementsAre("service", "track", "artist", "volume"));
}

TEST(ArgumentOrders, ValuesThatTheRequestDoesNotNameAreNoPairs) {
  const auto rows = parse_rows(
      "{\"query\": \"play Help\", \"calls\": [{\"name\": \"play\", \"arguments\": {\"artist\": \"Beatles\", \"track\": "
      "\"Help\"}}]}\n",
      "t");
  EXPECT_THAT(argument_orders(rows, play()), IsEmpty());
}

TEST(ArgumentOrders, AreNotedWhereManyRequestsHaveAnother) {
  std::string some, many;
  for (int i = 0; i < 120; ++i) {
    std::string row = kTrackArtist;
    row.replace(row.find("play Help"), 4, "play" + std::string(static_cast<size_t>(i), '!'));
    if (i < 50) some += row;
    many += row;
  }
  for (const std::string& note : check_rows(parse_rows(some, "t"), play(), "t").notes)
    EXPECT_THAT(note, testing::Not(HasSubstr("properties")));
  EXPECT_THAT(check_rows(parse_rows(many, "t"), play(), "t").notes,
              testing::Contains(HasSubstr("requests name the first first in 0 %; with the properties service, track, "
                                          "artist, volume in this order it would be 100 %.")));
}

}  // namespace
}  // namespace thimble
