// Every kernel, forward and backward, against PyTorch in double precision (tests/oracle/make_kernel_goldens.py).
#include <gtest/gtest.h>

#include <fstream>
#include <map>

#include "kernel_test_tools.h"
#include "kernels/adamw.h"
#include "kernels/elementwise.h"
#include "kernels/attention.h"
#include "kernels/attention_backward.h"
#include "kernels/cross_entropy.h"
#include "kernels/distillation.h"
#include "kernels/embedding.h"
#include "kernels/gelu.h"
#include "kernels/layer_norm.h"
#include "kernels/lora.h"
#include "kernels/rms_norm.h"
#include "kernels/rope.h"
#include "kernels/swiglu.h"
#include "test_data.h"

namespace thimble {
namespace {

using test::EachCpu;
using test::relative_difference;

using Floats = std::vector<float>;

const std::map<std::string, Floats>& goldens() {
  static const auto all = [] {
    std::map<std::string, Floats> arrays;
    std::ifstream index(test::golden("kernels/kernels.index")), values(test::golden("kernels/kernels.f32"));
    std::string name;
    for (size_t count = 0; index >> name >> count;) {
      Floats array(count);
      values.read(reinterpret_cast<char*>(array.data()), static_cast<std::streamsize>(count * sizeof(float)));
      arrays[name] = std::move(array);
    }
    return arrays;
  }();
  return all;
}

// One case's arrays, and comparisons with them.
struct Case {
  std::string name;

  const Floats& operator[](const std::string& array) const { return goldens().at(name + "." + array); }
  const float* data(const std::string& array) const { return (*this)[array].data(); }
  std::vector<int32_t> ints(const std::string& array) const { return {(*this)[array].begin(), (*this)[array].end()}; }
  Floats like(const std::string& array) const { return Floats((*this)[array].size()); }
  Tensor matrix(const std::string& array, int64_t rows) const {
    const auto cols = static_cast<int64_t>((*this)[array].size()) / rows;
    return {DType::kF32, {rows, cols}, reinterpret_cast<const std::byte*>(data(array)), nullptr};
  }
  void expect(const std::string& array, const Floats& got, double limit) const {
    const Floats& expected = (*this)[array];
    ASSERT_EQ(got.size(), expected.size());
    EXPECT_LE(relative_difference(got.data(), expected.data(), static_cast<int64_t>(got.size())), limit)
        << name << "." << array << " at " << cpu_level_name(cpu_level());
  }
};

constexpr double kExact = 1e-6;  // for what is computed in f32 always

double limit(GemmPrecision precision) { return precision == GemmPrecision::kF32 ? 1e-5 : 1e-2; }

// Runs body(precision) with every instruction set and precision.
template <class Body>
void each(const Body& body) {
  EachCpu().run([&](CpuLevel) {
    for (const auto precision : {GemmPrecision::kF32, GemmPrecision::kBF16}) body(precision);
  });
}

TEST(Goldens, RmsNorm) {
  const Case c{"rms_norm"};
  EachCpu().run([&](CpuLevel) {
    Floats y = c.like("y"), dx = c.like("dx"), dweight = c.like("dweight");
    rms_norm_forward(c.data("x"), c.data("weight"), 13, 37, 1e-5f, y.data());
    rms_norm_backward(c.data("x"), c.data("weight"), c.data("dy"), 13, 37, 1e-5f, dx.data(), false, dweight.data());
    c.expect("y", y, kExact);
    c.expect("dx", dx, kExact);
    c.expect("dweight", dweight, kExact);
    rms_norm_backward(c.data("x"), c.data("weight"), c.data("dy"), 13, 37, 1e-5f, dx.data(), true);
    for (float& v : dx) v /= 2;
    c.expect("dx", dx, kExact);
  });
}

TEST(Goldens, LayerNorm) {
  const Case c{"layer_norm"};
  EachCpu().run([&](CpuLevel) {
    Floats y = c.like("y"), dx = c.like("dx"), dweight = c.like("dweight"), dbias = c.like("dbias");
    layer_norm_forward(c.data("x"), c.data("weight"), c.data("bias"), 70, 83, 1e-5f, y.data());
    layer_norm_backward(c.data("x"), c.data("weight"), c.data("dy"), 70, 83, 1e-5f, dx.data(), false, dweight.data(),
                        dbias.data());
    c.expect("y", y, kExact);
    c.expect("dx", dx, kExact);
    c.expect("dweight", dweight, kExact);
    c.expect("dbias", dbias, kExact);
  });
}

TEST(Goldens, Rope) {
  const Case c{"rope"};
  const auto positions = c.ints("positions");
  const RopeTable table(c["frequencies"], 3000);
  EachCpu().run([&](CpuLevel) {
    Floats y = c.like("y"), dx = c["dy"];
    rope_forward(c.data("x"), 11, 3, positions.data(), table, y.data());
    rope_backward(dx.data(), 11, 3, positions.data(), table, dx.data());
    c.expect("y", y, kExact);
    c.expect("dx", dx, kExact);
  });
}

TEST(Goldens, SwiGlu) {
  const Case c{"swiglu"};
  EachCpu().run([&](CpuLevel) {
    Floats y = c.like("y"), dgate = c["dy"], dup = c.like("dup");
    swiglu_forward(c.data("gate"), c.data("up"), 1003, y.data());
    swiglu_backward(c.data("gate"), c.data("up"), dgate.data(), 1003, dgate.data(), dup.data());
    c.expect("y", y, kExact);
    c.expect("dgate", dgate, kExact);
    c.expect("dup", dup, kExact);
  });
}

TEST(Goldens, Gelu) {
  const Case c{"gelu"};
  EachCpu().run([&](CpuLevel) {
    Floats y = c["x"], dx = c.like("dx");
    gelu_forward(y.data(), 517, y.data());
    gelu_backward(c.data("x"), c.data("dy"), 517, dx.data());
    c.expect("y", y, kExact);
    c.expect("dx", dx, kExact);
  });
}

TEST(Goldens, Embedding) {
  const Case c{"embedding"};
  const auto ids = c.ints("ids");
  Floats y = c.like("y"), dtable = c.like("dtable");
  embedding_forward(c.matrix("table", 19), ids.data(), 41, y.data());
  embedding_backward(c.data("dy"), ids.data(), 41, 85, dtable.data());
  c.expect("y", y, 0);
  c.expect("dtable", dtable, kExact);
}

TEST(Goldens, Linear) {
  const Case c{"linear"};
  const GemmInput x{c.data("x"), 71, 51}, dy{c.data("dy"), 71, 37};
  each([&](GemmPrecision precision) {
    Floats y = c.like("y"), dx = c.like("dx"), dw = c.like("dw");
    linear_forward(precision, x, c.matrix("w", 37), y.data());
    linear_backward_input(precision, dy, c.matrix("w", 37), dx.data());
    linear_backward_weight(precision, dy, x, dw.data());
    c.expect("y", y, limit(precision));
    c.expect("dx", dx, limit(precision));
    c.expect("dw", dw, limit(precision));
  });
}

TEST(Goldens, Lora) {
  const Case c{"lora"};
  const GemmInput x{c.data("x"), 90, 66}, dy{c.data("dy"), 90, 130};
  const LowRank adapter{c.data("a"), c.data("b"), 5, 0.75f};
  each([&](GemmPrecision precision) {
    Floats y = c.like("y"), t = c.like("t"), dx = c.like("dx"), da = c.like("da"), db = c.like("db");
    lora_forward(precision, x, c.matrix("w", 130), adapter, y.data(), t.data());
    lora_backward(precision, dy, x, c.matrix("w", 130), adapter, t.data(), dx.data(), false, da.data(), db.data());
    c.expect("y", y, limit(precision));
    c.expect("dx", dx, limit(precision));
    c.expect("da", da, limit(precision));
    c.expect("db", db, limit(precision));
  });
}

void expect_attention(const Case& c, AttentionPlan plan, const AttentionShape& shape) {
  int32_t first = 0;
  for (AttentionSegment& s : plan.segments) {
    s.query_first = s.key_first = first;
    for (const KeyRange& range : s.ancestors) s.position += range.count;
    first += s.query_count;
  }
  const int64_t rows = plan.rows();
  const KeyValueRows kv{c.data("k"), c.data("v"), shape.kv_heads * shape.head_dim};
  each([&](GemmPrecision precision) {
    Floats out = c.like("out"), lse = c.like("lse"), dq = c.like("dq"), dk = c.like("dk"), dv = c.like("dv");
    attention_forward(c.data("q"), kv, plan, shape, out.data(), lse.data());
    attention_backward(precision, c.data("q"), c.data("k"), c.data("v"), out.data(), lse.data(), c.data("dout"), rows,
                       plan, shape, dq.data(), dk.data(), dv.data());
    c.expect("out", out, 1e-5);
    c.expect("lse", lse, 1e-5);
    c.expect("dq", dq, limit(precision));
    c.expect("dk", dk, limit(precision));
    c.expect("dv", dv, limit(precision));
  });
}
AttentionSegment segment(int32_t count, std::vector<KeyRange> ancestors = {}) {
  return {0, count, 0, 0, std::move(ancestors)};
}

TEST(Goldens, AttentionOverPackedRows) {
  expect_attention({"attention_packed"}, {{segment(7), segment(41), segment(1), segment(30)}, 0}, {6, 2, 18, 0.37f});
}
TEST(Goldens, AttentionOverAPrefixTree) {
  expect_attention({"attention_tree"},
                   {{segment(40), segment(9, {{0, 40}}), segment(70, {{0, 40}}), segment(5, {{0, 40}, {40, 9}}),
                     segment(3, {{0, 40}, {40, 9}})},
                    0},
                   {4, 2, 8, 0.37f});
}
TEST(Goldens, AttentionThroughASlidingWindow) {
  expect_attention({"attention_window"}, {{segment(60), segment(11, {{0, 60}})}, 13}, {2, 2, 16, 0.37f});
}

TEST(Goldens, CrossEntropy) {
  const Case c{"cross_entropy"};
  const auto targets = c.ints("targets");
  const Tensor head = c.matrix("head", 701);
  each([&](GemmPrecision precision) {
    for (const bool train_head : {false, true}) {
      Floats losses = c.like("losses"), dhidden = c.like("dhidden"), dhead = c.like("dhead");
      CrossEntropy args;
      args.precision = precision;
      args.hidden = c.data("hidden");
      args.rows = 23;
      args.targets = targets.data();
      args.row_weights = c.data("weights");
      args.head = &head;
      args.row_losses = losses.data();
      args.dhidden = dhidden.data();
      if (train_head) args.dhead = dhead.data();
      const auto loss = static_cast<float>(cross_entropy(args));
      c.expect("loss", {loss}, precision == GemmPrecision::kF32 ? 1e-6 : 1e-3);
      c.expect("losses", losses, precision == GemmPrecision::kF32 ? 1e-6 : 3e-3);
      c.expect("dhidden", dhidden, limit(precision));
      if (train_head) c.expect("dhead", dhead, limit(precision));
    }
  });
}

TEST(Goldens, Distillation) {
  const Case c{"distillation"};
  const int64_t rows = 23, vocab = 701, known = 9;
  const auto targets = c.ints("targets"), saved_tokens = c.ints("saved_tokens");
  const Tensor head = c.matrix("head", vocab), teacher_head = c.matrix("teacher_head", vocab);
  std::vector<TeacherToken> saved;
  for (size_t i = 0; i < saved_tokens.size(); ++i) saved.push_back({saved_tokens[i], c["saved_log_probs"][i]});
  std::vector<std::span<const TeacherToken>> saved_rows;
  for (int64_t r = 0; r < rows; ++r)
    saved_rows.push_back(std::span(saved).subspan(static_cast<size_t>(r * known), static_cast<size_t>(known)));
  const std::pair<const char*, Divergence> kinds[] = {
      {"forward_kl", Divergence::kForwardKl}, {"reverse_kl", Divergence::kReverseKl}, {"jsd", Divergence::kJsd}};
  each([&](GemmPrecision precision) {
    for (const auto& [name, divergence] : kinds)
      for (const bool live : {true, false}) {
        const Case expected{std::string("distillation_") + (live ? "" : "saved_") + name};
        Distillation args;
        args.precision = precision;
        args.divergence = divergence;
        args.beta = 0.3f;
        args.temperature = live ? 1.7f : 1.0f;
        args.weight = 0.6f;
        args.hidden = c.data("hidden");
        args.rows = rows;
        args.targets = targets.data();
        args.row_weights = c.data("weights");
        args.head = &head;
        if (live) {
          args.teacher_hidden = c.data("teacher_hidden");
          args.teacher_head = &teacher_head;
        } else {
          args.saved = saved_rows;
        }
        const double loss_alone = distillation(args);
        Floats dhidden = expected.like("dhidden"), dhead(c["head"].size());
        args.dhidden = dhidden.data();
        if (expected.name == "distillation_jsd") args.dhead = dhead.data();
        const auto loss = static_cast<float>(distillation(args));
        EXPECT_NEAR(loss_alone, loss, 1e-6 * loss);
        expected.expect("loss", {loss}, limit(precision));
        expected.expect("dhidden", dhidden, limit(precision));
        if (args.dhead != nullptr) expected.expect("dhead", dhead, limit(precision));
      }
  });
}

TEST(Goldens, AdamW) {
  const Case c{"adamw"};
  EachCpu().run([&](CpuLevel) {
    Floats p = c["start"], m(101), v(101);
    const AdamWSettings settings{0.01f, 0.9f, 0.98f, 1e-8f, 0.1f};
    for (int step = 0; step < 3; ++step)
      adamw_step(settings, step + 1, 1, c.data("gradients") + step * 101, 101, p.data(), m.data(), v.data());
    c.expect("p", p, kExact);
  });
}

TEST(Optimizer, SumsSquaresAndScalesInOneOrder) {
  Random random(2);
  Floats x = test::random_floats(40001, random);
  double expected = 0;
  for (const float v : x) expected += static_cast<double>(v) * static_cast<double>(v);
  EachCpu().run([&](CpuLevel) { EXPECT_NEAR(squared_norm(x.data(), 40001), expected, 1e-8 * expected); });
  const float first = x[0], last = x.back();
  scale_values(x.data(), 40001, 0.5f);
  EXPECT_EQ(x[0], first / 2);
  EXPECT_EQ(x.back(), last / 2);
}

}  // namespace
}  // namespace thimble
