#pragma once

#include <cstddef>
#include <deque>
#include <optional>

namespace thimble {

// Tells a training that falls apart from one that is noisy. A step stands out when its loss is above the highest of
// the 32 before it by half of their mean, at least by 1 nat (three times that while fewer than 8 steps are known), or
// its gradient's norm a hundred times the largest of theirs (a million times while few are known); five such steps in
// a row are a divergence. Steps that stand out are compared with those before the first of them, and join them when
// the row ends: one batch of odd rows stops nothing. By rank alone five values in a row above the largest of eight
// are rarer than 1 in 1,200 in noise of any distribution, above that of 32 rarer than 1 in 400,000; the margins make
// it rarer still.
class DivergenceWatch {
 public:
  struct Finding {
    bool gradient = false;  // else the loss
    double value = 0;       // of the last step
    double highest = 0;     // of the steps before
  };
  // Of one optimizer step; both finite.
  std::optional<Finding> add(double loss, double gradient_norm);

 private:
  struct Series {
    std::deque<double> known, standing_out;
    bool add(double value, double margin);  // true at the fifth in a row
    double highest() const;
    double mean() const;
  };
  Series loss_, log_norm_;
};

}  // namespace thimble
