#pragma once

#include <chrono>
#include <cstddef>

namespace thimble {

struct HttpLimits {
  size_t header_bytes = 16 << 10;                // 431 beyond
  size_t body_bytes = size_t{8} << 20;           // 413 beyond
  size_t all_bodies_bytes = size_t{512} << 20;   // of the requests that are being read: 503 beyond
  size_t unsent_bytes = size_t{4} << 20;         // of a stream
  int connections = 4096;                        // more wait to be accepted
  std::chrono::milliseconds read_time{30'000};   // for a request's head, and again for each piece of its body: 408
  std::chrono::milliseconds idle_time{75'000};   // between requests of one connection
  std::chrono::milliseconds quiet_time{15'000};  // of a stream, after which it shows that it lives; 0: never
  std::chrono::milliseconds write_time{60'000};  // in which a client must take something
};

}  // namespace thimble
