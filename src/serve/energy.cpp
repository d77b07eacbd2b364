#include "serve/energy.h"

#include <fstream>
#include <optional>
#include <string>
#include <system_error>

namespace thimble {
namespace {

std::optional<uint64_t> read_number(const std::filesystem::path& file) {
  std::ifstream in(file);
  uint64_t value = 0;
  if (in >> value) return value;
  return std::nullopt;
}

}  // namespace

EnergyMeter::EnergyMeter(std::filesystem::path folder) {
  std::error_code none;
  for (const auto& entry : std::filesystem::directory_iterator(folder, none)) {
    const std::string name = entry.path().filename().string();
    // intel-rapl:0 is a package; intel-rapl:0:1 a part of it, intel-rapl-mmio:0 the same package by another way.
    if (!name.starts_with("intel-rapl:") || name.find(':') != name.rfind(':')) continue;
    std::string kind;
    std::ifstream(entry.path() / "name") >> kind;
    if (!kind.starts_with("package")) continue;
    const auto now = read_number(entry.path() / "energy_uj");
    const auto range = read_number(entry.path() / "max_energy_range_uj");
    if (now && range) zones_[entry.path()] = {*now, *range};
  }
}

double EnergyMeter::joules() {
  const std::scoped_lock lock(mutex_);
  for (auto& [path, zone] : zones_) {
    const auto now = read_number(path / "energy_uj");
    if (!now) continue;
    const uint64_t used = *now >= zone.last ? *now - zone.last : zone.range - zone.last + *now;
    joules_ += static_cast<double>(used) * 1e-6;
    zone.last = *now;
  }
  return joules_;
}

}  // namespace thimble
