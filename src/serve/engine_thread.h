#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "core/clock.h"
#include "infer/engine.h"

namespace thimble {

// The one thread that computes: it drives the engines of all loaded models in turns, a step each, and between steps
// does what others ask of it. Callbacks are called on it and must be quick.
class EngineThread {
 public:
  EngineThread();
  ~EngineThread();  // open requests are dropped without a word

  struct Work {
    std::shared_ptr<Engine> engine;
    GenerateRequest request;             // its on_text is taken by this
    int choices = 1;                     // answers, sampled with seed, seed + 1, ...
    std::shared_ptr<const void> keeps;   // what the request points to
    double most_s = 0;                   // from now to the answers' end, waiting included; 0: as long as it takes
    std::function<void(int choice, std::string_view piece, const Answer& so_far)> on_text;
    std::function<void(int choice, const Answer& answer)> on_done;
    // Instead of all others; or after them, where the engine fails or (`late`) the time is over.
    std::function<void(const std::string& why, bool late)> on_refused;
  };
  using Ticket = uint64_t;
  Ticket submit(Work work);
  void cancel(Ticket ticket);  // its answers end as cancelled
  void cancel_all();

  // Between two steps; `run` waits until it is done and rethrows what it throws.
  void post(std::function<void()> task);
  void run(const std::function<void()>& task);

  // The last step's state, for metrics.
  struct Load {
    int64_t open = 0;       // answers that were asked for and are not done
    int64_t running = 0;    // of them, in the batch
    int64_t steps = 0;      // ever
    double busy_s = 0;      // spent in them
  };
  Load load() const;

  // How one engine stood after its last step. Any thread.
  struct Use {
    int running = 0, waiting = 0;             // answers
    int64_t cache_held = 0, cache_used = 0;  // tokens: of open sequences; with what is remembered
  };
  Use use(const Engine* engine) const;

 private:
  struct Open {
    std::shared_ptr<Work> work;
    int choice = 0;
    Clock::time_point start = Clock::now();
  };
  struct Driven {
    std::shared_ptr<Engine> engine;
    std::map<Engine::Id, std::pair<Ticket, Open>> open;
    std::vector<Engine::Id> given_up;  // whose answers nobody waits for
  };

  void loop();
  void start(Ticket ticket, const std::shared_ptr<Work>& work);
  bool step(Driven& driven);
  void collect(Driven& driven);
  void end_late(Driven& driven);
  void give_up(Driven& driven, Ticket ticket, const std::string& why, bool late);
  void note_use(const std::shared_ptr<Engine>& engine);

  std::mutex mutex_;
  std::condition_variable wake_;
  std::vector<std::function<void()>> tasks_;
  bool stop_ = false;
  std::atomic<Ticket> next_ticket_{1};
  std::map<Engine*, Driven> driven_;  // engines with open requests
  std::atomic<int64_t> open_{0}, running_{0}, steps_{0};
  std::atomic<double> busy_s_{0};
  struct Told {
    std::weak_ptr<Engine> engine;
    Use use;
  };
  mutable std::mutex use_mutex_;
  std::map<const Engine*, Told> use_;
  std::jthread thread_;
};

}  // namespace thimble
