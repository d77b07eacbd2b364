#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <span>
#include <vector>

#include "train/batch.h"

namespace thimble {

// Which rows the epochs after the first visit: those that gave the model most trouble when it last saw them (selective
// backpropagation, Jiang et al. 2019, arXiv 1910.00762). What it writes right already takes no time again.
//
// A row's trouble is the weighted loss of the token of its answer that the model expected least, over the mean of the
// rows that were trained on around it: so rows that came while the model knew little are not taken for hard ones. The
// worst token and not their sum, because it is what makes an answer wrong, and long answers in free words, of which no
// model knows every word, would be all that is visited.
class Revisits {
 public:
  struct RowLoss {
    int row;      // index into the data
    double loss;  // weighted, the largest of its trained tokens'
  };
  // Adds the rows of a micro-batch, whose trained tokens had these losses, in the batch's order.
  static void collect(const TrainBatch& batch, std::span<const float> losses, std::vector<RowLoss>& rows);

  explicit Revisits(size_t rows) : trouble_(rows, 1.0) {}
  void add_step(std::span<const RowLoss> rows);  // all of an optimizer step
  // The rows with most trouble of those that are there, of equal ones the first; fixed from an epoch's first step on.
  // In the order of the data.
  const std::vector<int>& of_epoch(int64_t epoch, size_t count);

  nlohmann::json to_json() const;
  // Throws nlohmann::json::exception where a part is missing or of another type, Error where it is of other data.
  void read_json(const nlohmann::json& json);

 private:
  std::vector<double> trouble_;  // [rows]
  double typical_ = 0;           // RowLoss::loss, exponential mean over some thirty steps; 0: no step yet
  int64_t epoch_ = -1;           // that rows_ are of
  std::vector<int> rows_;
};

}  // namespace thimble
