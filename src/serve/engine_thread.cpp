#include "serve/engine_thread.h"

#include <fmt/core.h>

#include <algorithm>
#include <future>
#include <utility>

#include "core/clock.h"
#include "core/error.h"

namespace thimble {

EngineThread::EngineThread() : thread_([this] { loop(); }) {}

EngineThread::~EngineThread() {
  {
    const std::scoped_lock lock(mutex_);
    stop_ = true;
  }
  wake_.notify_all();
}

void EngineThread::post(std::function<void()> task) {
  {
    const std::scoped_lock lock(mutex_);
    tasks_.push_back(std::move(task));
  }
  wake_.notify_all();
}

void EngineThread::run(const std::function<void()>& task) {
  std::promise<void> done;
  post([&] {
    try {
      task();
      done.set_value();
    } catch (...) {
      done.set_exception(std::current_exception());
    }
  });
  done.get_future().get();
}

EngineThread::Ticket EngineThread::submit(Work work) {
  const Ticket ticket = next_ticket_++;
  open_ += work.choices;
  post([this, ticket, shared = std::make_shared<Work>(std::move(work))] { start(ticket, shared); });
  return ticket;
}

void EngineThread::start(Ticket ticket, const std::shared_ptr<Work>& work) {
  Driven& driven = driven_[work->engine.get()];
  driven.engine = work->engine;
  for (int choice = 0; choice < work->choices; ++choice) {
    GenerateRequest request = work->request;
    request.sampling.seed += static_cast<uint64_t>(choice);
    if (work->on_text)
      request.on_text = [work = work.get(), choice](std::string_view piece, const Answer& so_far) {
        work->on_text(choice, piece, so_far);
        return true;
      };
    try {
      driven.open.emplace(work->engine->submit(std::move(request)), std::pair{ticket, Open{work, choice}});
    } catch (const Error& e) {
      open_ -= work->choices - choice;
      work->on_refused(e.what(), false);
      cancel(ticket);
      return;
    }
  }
}

void EngineThread::cancel(Ticket ticket) {
  post([this, ticket] {
    for (auto& [engine, driven] : driven_)
      for (const auto& [id, open] : driven.open)
        if (open.first == ticket) driven.engine->cancel(id);
  });
}

void EngineThread::cancel_all() {
  post([this] {
    for (auto& [engine, driven] : driven_)
      for (const auto& [id, open] : driven.open) driven.engine->cancel(id);
  });
}

// Ends what is left of a request, and tells it why.
void EngineThread::give_up(Driven& driven, Ticket ticket, const std::string& why, bool late) {
  std::shared_ptr<Work> work;
  for (auto it = driven.open.begin(); it != driven.open.end();) {
    if (it->second.first != ticket) {
      ++it;
      continue;
    }
    work = it->second.second.work;
    driven.engine->cancel(it->first);
    driven.given_up.push_back(it->first);
    it = driven.open.erase(it);
    --open_;
  }
  if (work) work->on_refused(why, late);
}

void EngineThread::end_late(Driven& driven) {
  std::vector<std::pair<Ticket, double>> late;
  for (const auto& [id, open] : driven.open) {
    const double most = open.second.work->most_s;
    if (most > 0 && seconds_since(open.second.start) > most) late.emplace_back(open.first, most);
  }
  for (const auto& [ticket, most] : late)
    give_up(driven, ticket, fmt::format("the answer was not done within {} seconds, the server's limit", most), true);
}

void EngineThread::collect(Driven& driven) {
  std::erase_if(driven.given_up, [&](Engine::Id id) { return driven.engine->take(id).has_value(); });
  for (auto it = driven.open.begin(); it != driven.open.end();) {
    const auto answer = driven.engine->take(it->first);
    if (!answer) {
      ++it;
      continue;
    }
    const Open open = it->second.second;
    it = driven.open.erase(it);
    --open_;
    open.work->on_done(open.choice, *answer);
  }
}

// One forward pass; false where nothing is left to do.
bool EngineThread::step(Driven& driven) {
  const auto begin = Clock::now();
  end_late(driven);
  bool more = false;
  try {
    more = driven.engine->step();
  } catch (const std::exception& e) {
    // Nobody knows in what state the batch is: those who wait are told, and the engine goes on with what comes.
    while (!driven.open.empty()) give_up(driven, driven.open.begin()->second.first, e.what(), false);
    note_use(driven.engine);
    return false;
  }
  ++steps_;
  busy_s_ = busy_s_ + seconds_since(begin);
  note_use(driven.engine);
  collect(driven);
  return more;
}

void EngineThread::note_use(const std::shared_ptr<Engine>& engine) {
  const Use now{engine->running(), engine->waiting(), engine->cache().held(), engine->cache().used()};
  const std::scoped_lock lock(use_mutex_);
  const auto [entry, is_new] = use_.try_emplace(engine.get());
  // An address may come again once its engine is gone.
  if (is_new) std::erase_if(use_, [&](const auto& told) { return &told != &*entry && told.second.engine.expired(); });
  entry->second = {engine, now};
}

EngineThread::Use EngineThread::use(const Engine* engine) const {
  const std::scoped_lock lock(use_mutex_);
  const auto found = use_.find(engine);
  return found == use_.end() || found->second.engine.expired() ? Use{} : found->second.use;
}

void EngineThread::loop() {
  for (;;) {
    std::vector<std::function<void()>> tasks;
    {
      std::unique_lock lock(mutex_);
      if (driven_.empty()) wake_.wait(lock, [this] { return stop_ || !tasks_.empty(); });
      if (stop_) return;
      tasks.swap(tasks_);
    }
    for (const auto& task : tasks) task();
    int64_t running = 0;
    for (auto it = driven_.begin(); it != driven_.end();) {
      const bool more = step(it->second);
      running += it->second.engine->running();
      it = more || !it->second.open.empty() ? std::next(it) : driven_.erase(it);
    }
    running_ = running;
  }
}

EngineThread::Load EngineThread::load() const { return {open_, running_, steps_, busy_s_}; }

}  // namespace thimble
