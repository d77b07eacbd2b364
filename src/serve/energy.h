#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <mutex>

namespace thimble {

// Energy that the machine's processors took since this was made, as they count it (Linux powercap, "intel-rapl":
// Intel's and AMD's packages). Of the whole machine, not of this process. Thread-safe.
class EnergyMeter {
 public:
  explicit EnergyMeter(std::filesystem::path folder = "/sys/class/powercap");

  // False where the machine doesn't tell, or tells only root.
  bool available() const { return !zones_.empty(); }
  // Call it at least every few minutes: counters run over.
  double joules();

 private:
  struct Zone {
    uint64_t last = 0, range = 0;  // microjoules
  };
  std::mutex mutex_;
  std::map<std::filesystem::path, Zone> zones_;  // one a package
  double joules_ = 0;
};

}  // namespace thimble
