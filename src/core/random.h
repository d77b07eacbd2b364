#pragma once

#include <array>
#include <bit>
#include <cmath>
#include <cstdint>

namespace thimble {

// Bits that depend on a key and a place alone, so that nothing drawn has to be kept; the high ones are the good ones.
// splitmix64 but for its last step, which is for the low ones.
inline uint64_t random_bits(uint64_t key, uint64_t place) {
  uint64_t z = key + 0x9e3779b97f4a7c15u * (place + 1);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  return (z ^ (z >> 27)) * 0x94d049bb133111ebu;
}

// xoshiro256++ (Blackman and Vigna, 2019), seeded by splitmix64. The same seed gives the same numbers on every
// machine, which std::distributions do not promise; the state can be saved in a checkpoint.
class Random {
 public:
  using State = std::array<uint64_t, 4>;

  explicit Random(uint64_t seed) {
    for (size_t i = 0; i < state_.size(); ++i) {
      const uint64_t z = random_bits(seed, i);
      state_[i] = z ^ (z >> 31);
    }
  }
  explicit Random(const State& state) : state_(state) {}

  uint64_t next() {
    const uint64_t result = std::rotl(state_[0] + state_[3], 23) + state_[0];
    const uint64_t t = state_[1] << 17;
    state_[2] ^= state_[0];
    state_[3] ^= state_[1];
    state_[1] ^= state_[2];
    state_[0] ^= state_[3];
    state_[2] ^= t;
    state_[3] = std::rotl(state_[3], 45);
    return result;
  }
  uint64_t below(uint64_t bound) {  // uniform in [0, bound), bound > 0 (Lemire 2019)
    return static_cast<uint64_t>((static_cast<unsigned __int128>(next()) * bound) >> 64);
  }
  double uniform() { return static_cast<double>(next() >> 11) * 0x1.0p-53; }  // [0, 1)
  float normal() {                                                           // mean 0, deviation 1 (Box and Muller)
    const double u = 1.0 - uniform();
    const double v = uniform();
    return static_cast<float>(std::sqrt(-2.0 * std::log(u)) * std::cos(6.283185307179586 * v));
  }
  template <class Range>
  void shuffle(Range& range) {  // Fisher and Yates
    for (size_t i = range.size(); i > 1; --i) std::swap(range[i - 1], range[below(i)]);
  }
  const State& state() const { return state_; }

 private:
  State state_;
};

}  // namespace thimble
