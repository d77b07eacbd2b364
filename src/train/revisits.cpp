#include "train/revisits.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <numeric>

#include "core/error.h"

namespace thimble {

void Revisits::collect(const TrainBatch& batch, std::span<const float> losses, std::vector<RowLoss>& rows) {
  for_trained(batch, [&](size_t number, size_t position, int row) {
    if (rows.empty() || rows.back().row != row) rows.push_back({row, 0});
    rows.back().loss =
        std::max(rows.back().loss, static_cast<double>(batch.weights[position]) * static_cast<double>(losses[number]));
  });
}

void Revisits::add_step(std::span<const RowLoss> rows) {
  if (rows.empty()) return;
  double mean = 0;
  for (const RowLoss& r : rows) mean += r.loss / static_cast<double>(rows.size());
  typical_ = typical_ == 0 ? mean : typical_ + (mean - typical_) / 32;
  for (const RowLoss& r : rows) trouble_[static_cast<size_t>(r.row)] = r.loss / std::max(typical_, 1e-12);
}

const std::vector<int>& Revisits::of_epoch(int64_t epoch, size_t count) {
  if (epoch == epoch_) return rows_;
  epoch_ = epoch;
  rows_.resize(trouble_.size());
  std::iota(rows_.begin(), rows_.end(), 0);
  std::stable_sort(rows_.begin(), rows_.end(), [&](int a, int b) {
    return trouble_[static_cast<size_t>(a)] > trouble_[static_cast<size_t>(b)];
  });
  rows_.resize(std::min(count, rows_.size()));
  std::sort(rows_.begin(), rows_.end());
  return rows_;
}

nlohmann::json Revisits::to_json() const {
  return {{"trouble", trouble_}, {"typical", typical_}, {"epoch", epoch_}, {"rows", rows_}};
}

void Revisits::read_json(const nlohmann::json& json) {
  const auto trouble = json.at("trouble").get<std::vector<double>>();
  if (trouble.size() != trouble_.size()) throw Error("the losses of rows are of other data");
  trouble_ = trouble;
  typical_ = json.at("typical");
  epoch_ = json.at("epoch");
  rows_ = json.at("rows").get<std::vector<int>>();
  for (const int row : rows_)
    if (row < 0 || static_cast<size_t>(row) >= trouble_.size()) throw Error("a revisited row is of other data");
}

}  // namespace thimble
