#pragma once

#include <memory>
#include <optional>
#include <string>

#include "cli/commands.h"
#include "data/job.h"
#include "infer/engine.h"

namespace thimble {

// A model ready to answer, as the commands share it.
struct Session {
  std::unique_ptr<Engine> engine;
  int adapter = 0;                       // the engine's number of the loaded adapter; 0: none
  std::optional<JobManifest> manifest;  // where the adapter brought one

  std::optional<double> call_threshold() const { return manifest ? manifest->call_threshold : std::nullopt; }
};

// Opens the model (a path or a pulled name) and, where given, the adapter folder; refuses an adapter whose manifest
// names another base. `batch` sequences run side by side.
Session open_session(const ModelOptions& options, int batch = 1);

// Stops at the first Ctrl-C: true once it was pressed since the last reset; a second press ends the program.
class Interrupt {
 public:
  Interrupt();
  ~Interrupt();
  Interrupt(const Interrupt&) = delete;
  Interrupt& operator=(const Interrupt&) = delete;
  static bool pressed();
  static void reset();
};

}  // namespace thimble
