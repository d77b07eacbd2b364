#include "train/pack.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <optional>

#include "core/error.h"
#include "core/random.h"
#include "train/prefix_tree.h"

namespace thimble {
namespace {

float loss_weight(const TrainRow& row, size_t token) {
  if (row.trained[token] == 0) return 0;
  return row.weights.empty() ? 1.0f : row.weights[token];
}

void check(std::span<const TrainRow> rows, int together) {
  if (together < 1 || rows.size() % static_cast<size_t>(together) != 0)
    throw Error(fmt::format("{} rows can't be parted into groups of {}", rows.size(), together));
  for (const TrainRow& row : rows) {
    if (row.tokens.size() != row.trained.size())
      throw Error(fmt::format("row {}: {} tokens but {} training marks; encode the row again", row.row,
                              row.tokens.size(), row.trained.size()));
    if (!row.weights.empty() && row.weights.size() != row.tokens.size())
      throw Error(fmt::format("row {}: {} tokens but {} weights", row.row, row.tokens.size(), row.weights.size()));
    for (size_t i = 0; i < row.weights.size(); ++i)
      if (row.trained[i] != 0 && !(row.weights[i] > 0 && std::isfinite(row.weights[i])))
        throw Error(
            fmt::format("row {}: token {} is trained with weight {}; weights are above 0", row.row, i, row.weights[i]));
    if (trained_tokens(row) == 0)
      throw Error(fmt::format("row {}: no token is trained; give it an answer or leave it out", row.row));
  }
}

// Rows that stay together, by the number of their group.
std::vector<int> rows_of(int group, int together) {
  std::vector<int> out(static_cast<size_t>(together));
  std::iota(out.begin(), out.end(), group * together);
  return out;
}

// As a micro-batch of its own.
MicroBatch alone(std::span<const TrainRow> rows, int group, int together) {
  std::vector<int> members = rows_of(group, together);
  const int64_t tokens = together == 1 ? computed_tokens(rows[static_cast<size_t>(group)])
                                       : tree_tokens(prefix_tree(rows, members));
  return {std::move(members), tokens};
}

// How many tokens a group would add to a micro-batch; nothing where it has no room. What is shared takes no room.
std::optional<int64_t> added_tokens(std::span<const TrainRow> rows, const MicroBatch& micro, const MicroBatch& group,
                                    int64_t budget) {
  std::vector<int> joined = micro.rows;
  joined.insert(joined.end(), group.rows.begin(), group.rows.end());
  const int64_t added = tree_tokens(prefix_tree(rows, std::move(joined))) - micro.tokens;
  const int64_t shared = group.tokens - added;
  return micro.tokens + added - shared <= budget ? std::optional(added) : std::nullopt;
}

void put(MicroBatch& place, const MicroBatch& group, int64_t added) {
  place.rows.insert(place.rows.end(), group.rows.begin(), group.rows.end());
  place.tokens += added;
}

// Longest first, each where it adds the fewest tokens of the micro-batches with room (best-fit decreasing): few
// micro-batches, and a fixed result for a fixed set of rows.
std::vector<MicroBatch> best_fit(std::span<const TrainRow> rows, std::span<const int> chosen, int together,
                                 int64_t budget) {
  std::vector<MicroBatch> groups, out;
  for (const int group : chosen) groups.push_back(alone(rows, group, together));
  std::stable_sort(groups.begin(), groups.end(),
                   [](const MicroBatch& a, const MicroBatch& b) { return a.tokens > b.tokens; });
  for (const MicroBatch& group : groups) {
    MicroBatch* place = nullptr;
    int64_t fewest = 0;
    for (MicroBatch& micro : out) {
      const auto added = added_tokens(rows, micro, group, budget);
      if (added && (place == nullptr || *added < fewest)) place = &micro, fewest = *added;
    }
    if (place == nullptr)
      out.push_back(group);
    else
      put(*place, group, fewest);
  }
  return out;
}

StepPlan step_of(std::span<const TrainRow> rows, std::span<const int> chosen, int together, int64_t budget) {
  StepPlan step;
  step.micro_batches = best_fit(rows, chosen, together, budget);
  for (const MicroBatch& micro : step.micro_batches) {
    step.tokens += micro.tokens;
    for (const int index : micro.rows) {
      step.trained += trained_tokens(rows[static_cast<size_t>(index)]);
      step.weight += trained_weight(rows[static_cast<size_t>(index)]);
    }
  }
  return step;
}

// Groups of rows in an order of their own for every epoch, batch_rows of them a step.
std::vector<StepPlan> pack_shuffled(std::span<const TrainRow> rows, std::vector<int> order, int batch_rows,
                                    int64_t token_budget, uint64_t seed, int epoch, int together) {
  if (batch_rows < 1) throw Error(fmt::format("batch_rows is {}; it must be at least 1", batch_rows));
  Random random(seed ^ (0x9e3779b97f4a7c15u * (static_cast<uint64_t>(epoch) + 1)));
  random.shuffle(order);

  std::vector<StepPlan> steps;
  for (size_t first = 0; first < order.size(); first += static_cast<size_t>(batch_rows)) {
    const size_t last = std::min(order.size(), first + static_cast<size_t>(batch_rows));
    steps.push_back(step_of(rows, std::span(order).subspan(first, last - first), together, token_budget));
  }
  return steps;
}

}  // namespace

int64_t computed_tokens(const TrainRow& row) {
  for (size_t i = row.trained.size(); i > 1; --i)
    if (row.trained[i - 1] != 0) return static_cast<int64_t>(i - 1);
  return 0;
}

int64_t trained_tokens(const TrainRow& row) {  // the first token has nothing before it to be predicted from
  int64_t count = 0;
  for (size_t i = 1; i < row.trained.size(); ++i) count += row.trained[i] != 0 ? 1 : 0;
  return count;
}

double trained_weight(const TrainRow& row) {
  double sum = 0;
  for (size_t i = 1; i < row.trained.size(); ++i) sum += loss_weight(row, i);
  return sum;
}

std::vector<StepPlan> pack_epoch(std::span<const TrainRow> rows, int batch_rows, int64_t token_budget, uint64_t seed,
                                 int epoch, int together) {
  check(rows, together);
  std::vector<int> all(rows.size() / static_cast<size_t>(together));
  std::iota(all.begin(), all.end(), 0);
  return pack_shuffled(rows, std::move(all), batch_rows, token_budget, seed, epoch, together);
}

std::vector<StepPlan> pack_epoch_of(std::span<const int> chosen, std::span<const TrainRow> rows, int batch_rows,
                                    int64_t token_budget, uint64_t seed, int epoch) {
  check(rows, 1);
  return pack_shuffled(rows, {chosen.begin(), chosen.end()}, batch_rows, token_budget, seed, epoch, 1);
}

StepPlan pack_step(std::span<const TrainRow> rows, int64_t token_budget) {
  check(rows, 1);
  std::vector<int> all(rows.size());
  std::iota(all.begin(), all.end(), 0);
  return step_of(rows, all, 1, token_budget);
}

std::vector<MicroBatch> pack_in_order(std::span<const TrainRow> rows, int64_t token_budget, int together) {
  check(rows, together);
  std::vector<MicroBatch> out;
  for (int i = 0; i < static_cast<int>(rows.size()) / together; ++i) {
    const MicroBatch group = alone(rows, i, together);
    const auto added = out.empty() ? std::nullopt : added_tokens(rows, out.back(), group, token_budget);
    if (added)
      put(out.back(), group, *added);
    else
      out.push_back(group);
  }
  return out;
}

TrainBatch make_batch(std::span<const TrainRow> rows, const MicroBatch& micro_batch) {
  TrainBatch batch;
  for (const TreeSegment& segment : prefix_tree(rows, micro_batch.rows)) {
    const TrainRow& row = rows[static_cast<size_t>(segment.row)];
    const auto first = static_cast<int32_t>(batch.tokens.size());
    std::vector<KeyRange> ancestors;
    for (const int a : segment.ancestors) {
      const AttentionSegment& above = batch.plan.segments[static_cast<size_t>(a)];
      ancestors.push_back({above.key_first, above.query_count});
    }
    batch.plan.segments.push_back({.query_first = first,
                                   .query_count = static_cast<int32_t>(segment.count),
                                   .key_first = first,
                                   .position = static_cast<int32_t>(segment.from),
                                   .ancestors = std::move(ancestors)});
    for (int64_t i = segment.from; i < segment.from + segment.count; ++i) {
      const size_t at = static_cast<size_t>(i);
      batch.tokens.push_back(row.tokens[at]);
      batch.targets.push_back(row.tokens[at + 1]);
      batch.weights.push_back(loss_weight(row, at + 1));
      batch.rows.push_back(segment.row);
      batch.lengths.push_back(static_cast<int32_t>(computed_tokens(row)));
    }
  }
  return batch;
}

}  // namespace thimble
