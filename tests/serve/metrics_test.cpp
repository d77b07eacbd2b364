#include "serve/metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <fstream>
#include <map>
#include <regex>
#include <set>
#include <thread>

#include "serve/energy.h"
#include "serve/http_client.h"
#include "serve/server.h"
#include "stories.h"

namespace thimble {
namespace {

using testing::DoubleNear;

// Reads the text format as strictly as its specification is worded: a HELP and a TYPE before a family's samples, all of
// a family together and once, no sample twice, histograms cumulative up to +Inf, which equals their count.
struct Exposition {
  std::map<std::string, double> samples;  // by the line's text up to the value
  std::map<std::string, std::string> types;

  double at(const std::string& sample) const {
    const auto found = samples.find(sample);
    if (found == samples.end()) ADD_FAILURE() << "no sample " << sample;
    return found == samples.end() ? NAN : found->second;
  }
};

Exposition read_exposition(const std::string& text) {
  static const std::regex comment(R"(# (HELP|TYPE) ([a-zA-Z_:][a-zA-Z0-9_:]*) (.+))");
  static const std::regex sample(
      R"(([a-zA-Z_:][a-zA-Z0-9_:]*)(\{([a-zA-Z_][a-zA-Z0-9_]*="([^"\\\n]|\\["\\n])*",?)*\})? ([-+.0-9eEInfNa]+))");
  static const std::regex bound("^(.*)[{,]le=\"([^\"]*)\"\\}$");
  Exposition out;
  EXPECT_TRUE(text.ends_with('\n'));
  std::istringstream lines(text);
  std::string family, described;
  std::string series;  // of a histogram: the name and labels of its buckets
  double below = 0, last_bound = -INFINITY;
  for (std::string line; std::getline(lines, line);) {
    std::smatch m;
    if (std::regex_match(line, m, comment)) {
      EXPECT_TRUE(series.empty()) << "a histogram ends without +Inf: " << series;
      if (m[1] == "HELP") {
        described = m[2];
        continue;
      }
      family = m[2];
      EXPECT_EQ(described, family) << "no HELP";
      EXPECT_TRUE(out.types.emplace(family, m[3]).second) << family << " comes twice";
      EXPECT_THAT(std::string(m[3]), testing::AnyOf("counter", "gauge", "histogram"));
      continue;
    }
    if (!std::regex_match(line, m, sample)) {
      ADD_FAILURE() << "malformed: " << line;
      continue;
    }
    const std::string name = m[1], key = m[1].str() + m[2].str();
    const double value = std::stod(m[5]);
    EXPECT_TRUE(out.samples.emplace(key, value).second) << "twice: " << line;
    const std::string& type = out.types[family];
    if (type != "histogram") {
      EXPECT_EQ(name, family);
      if (type == "counter") {
        EXPECT_GE(value, 0) << line;
      }
      continue;
    }
    if (name == family + "_bucket") {
      std::smatch b;
      if (!std::regex_match(key, b, bound)) {
        ADD_FAILURE() << "no le: " << line;
        continue;
      }
      if (series != b[1]) below = 0, last_bound = -INFINITY;
      EXPECT_GE(value, below) << line;
      EXPECT_GT(std::stod(b[2]), last_bound) << line;
      below = value;
      last_bound = std::stod(b[2]);
      series = std::isinf(last_bound) ? "" : b[1].str();
    } else if (name == family + "_count") {
      EXPECT_EQ(value, below) << line;
    } else {
      EXPECT_EQ(name, family + "_sum");
    }
  }
  return out;
}

std::string text_of(const Metrics& metrics) {
  MetricsText out;
  metrics.write(out);
  return out.take();
}

TEST(MetricsText, EscapesLabelsAndHelp) {
  MetricsText out;
  out.family("a", MetricsText::Kind::kGauge, "one\\two\nthree \"four\"");
  out.sample({{"name", "a\"b\\c\nd"}}, 0.1);
  EXPECT_EQ(out.take(),
            "# HELP a one\\\\two\\nthree \"four\"\n# TYPE a gauge\na{name=\"a\\\"b\\\\c\\nd\"} 0.1\n");
}

TEST(Histogram, PutsABoundIntoItsOwnBucket) {
  constexpr std::array bounds = {1.0, 2.0};
  Histogram h(bounds);
  h.observe(1.0);
  h.observe(1.5, 3);
  h.observe(9);
  EXPECT_THAT(h.counts(), testing::ElementsAre(1, 3, 1));
  EXPECT_EQ(h.count(), 5);
  EXPECT_DOUBLE_EQ(h.sum(), 14.5);
  MetricsText out;
  out.family("h", MetricsText::Kind::kHistogram, "h");
  out.histogram({{"m", "x"}}, h);
  const Exposition read = read_exposition(out.take());
  EXPECT_EQ(read.at("h_bucket{m=\"x\",le=\"2\"}"), 4);
  EXPECT_EQ(read.at("h_bucket{m=\"x\",le=\"+Inf\"}"), 5);
}

TEST(Metrics, CountsWhatAnAnswerTells) {
  Metrics metrics;
  Answer answer;
  answer.tokens = {1, 2, 3, 4, 5};
  answer.prompt_tokens = 40;
  answer.cached_tokens = 30;
  answer.forced_tokens = 2;
  answer.drafted_tokens = 4;
  answer.accepted_tokens = 3;
  answer.first_token_s = 0.1;
  answer.seconds = 0.5;
  metrics.generated("m", 5);
  metrics.answered("m", answer, true);
  metrics.generated("m", 5);
  metrics.answered("m", answer, false);  // the second answer to the same prompt
  metrics.request("/v1/chat/completions", 200, "m");
  const Exposition read = read_exposition(text_of(metrics));
  EXPECT_EQ(read.at("vllm:prompt_tokens_total{model_name=\"m\"}"), 40);
  EXPECT_EQ(read.at("vllm:prefix_cache_hits_total{model_name=\"m\"}"), 30);
  EXPECT_EQ(read.at("vllm:generation_tokens_total{model_name=\"m\"}"), 10);
  EXPECT_EQ(read.at("thimble_forced_tokens_total{model_name=\"m\"}"), 4);
  EXPECT_EQ(read.at("vllm:spec_decode_num_draft_tokens_total{model_name=\"m\"}"), 8);
  EXPECT_EQ(read.at("vllm:spec_decode_num_accepted_tokens_total{model_name=\"m\"}"), 6);
  EXPECT_EQ(read.at("vllm:request_success_total{model_name=\"m\",finished_reason=\"stop\"}"), 2);
  EXPECT_EQ(read.at("vllm:time_to_first_token_seconds_bucket{model_name=\"m\",le=\"0.1\"}"), 2);
  EXPECT_EQ(read.at("vllm:inter_token_latency_seconds_count{model_name=\"m\"}"), 8);
  EXPECT_THAT(read.at("vllm:inter_token_latency_seconds_sum{model_name=\"m\"}"), DoubleNear(0.8, 1e-9));
  EXPECT_EQ(read.at("thimble_requests_total{model_name=\"m\",endpoint=\"/v1/chat/completions\",status=\"200\"}"), 1);
}

TEST(Metrics, LeavesTimesOfCancelledAnswersOut) {
  Metrics metrics;
  Answer answer;
  answer.tokens = {1, 2};
  answer.finish = FinishReason::kCancelled;
  metrics.answered("m", answer, true);
  const Exposition read = read_exposition(text_of(metrics));
  EXPECT_EQ(read.at("vllm:request_success_total{model_name=\"m\",finished_reason=\"abort\"}"), 1);
  EXPECT_EQ(read.at("vllm:e2e_request_latency_seconds_count{model_name=\"m\"}"), 0);
}

// A folder as /sys/class/powercap looks on a machine with two packages.
class EnergyTest : public testing::Test {
 protected:
  void SetUp() override {
    for (const auto& [zone, name] : {std::pair{"intel-rapl:0", "package-0"},
                                     {"intel-rapl:0:0", "core"},
                                     {"intel-rapl:1", "package-1"},
                                     {"intel-rapl:2", "psys"},
                                     {"intel-rapl-mmio:0", "package-0"}}) {
      std::filesystem::create_directories(folder_ / zone);
      write(zone, "name", name);
      write(zone, "max_energy_range_uj", "10000000");
      write(zone, "energy_uj", "9000000");
    }
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }
  void write(const std::string& zone, const std::string& file, const std::string& text) const {
    std::ofstream(folder_ / zone / file) << text << '\n';
  }
  std::filesystem::path folder_ = std::filesystem::temp_directory_path() / ("thimble-energy-" + std::to_string(::getpid()));
};

TEST_F(EnergyTest, AddsUpPackagesAndSeesCountersRunOver) {
  EnergyMeter meter(folder_);
  ASSERT_TRUE(meter.available());
  EXPECT_EQ(meter.joules(), 0);
  write("intel-rapl:0", "energy_uj", "9500000");
  write("intel-rapl:1", "energy_uj", "250000");     // past 10 J
  write("intel-rapl:0:0", "energy_uj", "9900000");  // is in package-0 already
  EXPECT_THAT(meter.joules(), DoubleNear(0.5 + 1.25, 1e-9));
  EXPECT_THAT(meter.joules(), DoubleNear(1.75, 1e-9));
}

TEST_F(EnergyTest, SaysWhereAMachineDoesNotTell) {
  EXPECT_FALSE(EnergyMeter(folder_ / "nothing").available());
}

TEST(MetricsApi, CountersMoveAsRequestsDo) {
  THIMBLE_REQUIRE_STORIES();
  ServerOptions options;
  options.http.port = 0;
  options.models.push_back(test::stories_model().string());
  options.shelf.engine.cache_tokens = 512;
  Server server(std::move(options), [](const std::string&) {});
  const std::jthread thread([&] { server.run(); });
  const std::string model = server.shelf().list().front()->name;
  const auto ask = [&](const std::string& method, const std::string& path, const std::string& body = "") {
    Client client = Client::tcp(server.port());
    client.send(method + " " + path + " HTTP/1.1\r\nHost: localhost\r\nContent-Length: " + std::to_string(body.size()) +
                "\r\n\r\n" + body);
    return client.answer();
  };
  const auto scrape = [&] {
    const auto answer = ask("GET", "/metrics");
    EXPECT_EQ(answer.status, 200);
    EXPECT_EQ(answer.header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
    return read_exposition(answer.body);
  };
  const Exposition before = scrape();
  EXPECT_EQ(before.at("vllm:num_requests_running{model_name=\"" + model + "\"}"), 0);
  EXPECT_GT(before.at("process_resident_memory_bytes"), 1e6);
  const std::string body = R"({"prompt": "Once upon a time", "max_tokens": 12, "n": 2, "ignore_eos": true})";
  ASSERT_EQ(ask("POST", "/v1/completions", body).status, 200);
  ASSERT_EQ(ask("POST", "/v1/completions", R"({"prompt": 3})").status, 400);
  ASSERT_EQ(ask("GET", "/a\"path").status, 404);
  const Exposition after = scrape();
  const std::string of = "{model_name=\"" + model + "\"";
  EXPECT_EQ(after.at("vllm:generation_tokens_total" + of + "}"), 24);
  EXPECT_EQ(after.at("vllm:request_success_total" + of + ",finished_reason=\"length\"}"), 2);
  EXPECT_EQ(after.at("vllm:time_to_first_token_seconds_count" + of + "}"), 2);
  EXPECT_EQ(after.at("thimble_requests_total" + of + ",endpoint=\"/v1/completions\",status=\"200\"}"), 1);
  EXPECT_EQ(after.at("thimble_requests_total{model_name=\"\",endpoint=\"/v1/completions\",status=\"400\"}"), 1);
  EXPECT_EQ(after.at("thimble_requests_total{model_name=\"\",endpoint=\"none\",status=\"404\"}"), 1);
  EXPECT_GT(after.at("thimble_engine_steps_total"), before.at("thimble_engine_steps_total"));
  EXPECT_GT(after.at("thimble_kv_cache_filled_ratio" + of + "}"), 0);
  for (const auto& [name, type] : before.types) {
    if (type != "counter") continue;
    for (const auto& [sample, value] : before.samples) {
      if (sample != name && !sample.starts_with(name + "{")) continue;
      EXPECT_GE(after.at(sample), value) << "went back";
    }
  }
  server.stop();
}

}  // namespace
}  // namespace thimble
