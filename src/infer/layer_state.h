#pragma once

#include <cstdint>

namespace thimble {

// What the layers keep for a sequence between steps. Keys and values in a cache are one kind; recurrent states
// would be another. A snapshot is taken before tokens that may be taken back (drafts, forced text that is
// re-read), and roll_back forgets everything since.
class LayerState {
 public:
  using Sequence = int32_t;
  struct Snapshot {
    Sequence sequence = -1;
    int32_t length = 0;  // tokens that the sequence had
  };

  virtual ~LayerState() = default;
  virtual Snapshot snapshot(Sequence sequence) const = 0;
  virtual void roll_back(const Snapshot& snapshot) = 0;
};

}  // namespace thimble
