#include "serve/http_exchange.h"

#include <utility>

#include "serve/http_connection.h"

namespace thimble {

using Phase = Exchange::State::Phase;

Exchange::State::~State() {
  if (mailbox->ended) {
    try {
      const int told = status != 0 ? status : gone ? 499 : 500;
      mailbox->ended({request, key.get(), told, seconds_since(begin), std::move(note)});
    } catch (...) {  // a log that can't be written must not end the server
    }
  }
  if (phase == Phase::kEnded || gone) return;
  mailbox->post([c = connection, n = number] {
    if (const auto open = c.lock()) open->abandon(n);
  });
}

Exchange::State::Delivery Exchange::State::take() {
  const std::scoped_lock lock(mutex);
  scheduled = false;
  return std::exchange(waiting, {});
}

void Exchange::State::add(const std::function<void(Delivery&)>& change) {
  {
    const std::scoped_lock lock(mutex);
    if (phase == Phase::kEnded) return;
    change(waiting);
    if (waiting.head && phase == Phase::kOpen) phase = Phase::kStreaming;
    if (waiting.whole || waiting.ended) phase = Phase::kEnded;
    if (gone) waiting = {};
    if (gone || scheduled) return;
    scheduled = true;
  }
  mailbox->post([self = shared_from_this()] {
    if (const auto open = self->connection.lock()) open->deliver(*self);
  });
}

void Exchange::State::leave() {
  std::function<void()> call;
  {
    const std::scoped_lock lock(mutex);
    gone = true;
    waiting = {};
    call = std::exchange(callback, nullptr);
  }
  if (call) call();
}

void Exchange::State::forget_callback() {
  std::function<void()> dropped;  // outside of the lock: it may hold anything
  const std::scoped_lock lock(mutex);
  dropped = std::exchange(callback, nullptr);
}

void Exchange::State::show_life() {
  add([this](Delivery& d) {
    if (alive_piece.empty() || !d.pieces.empty()) return;
    if (phase == Phase::kOpen) {
      status = alive_head->status;
      d.head = alive_head;
    }
    d.pieces = alive_piece;
  });
}

const HttpRequest& Exchange::request() const { return state_->request; }

void Exchange::add_headers(const HttpFields& headers) {
  state_->headers.insert(state_->headers.end(), headers.begin(), headers.end());
}

void Exchange::set_key(std::shared_ptr<const ApiKey> key) { state_->key = std::move(key); }
const ApiKey* Exchange::key() const { return state_->key.get(); }

void Exchange::note(std::string text) {
  const std::scoped_lock lock(state_->mutex);
  state_->note = std::move(text);
}

void Exchange::respond(HttpResponse response) { respond_unless_begun(std::move(response)); }

bool Exchange::respond_unless_begun(HttpResponse response) {
  bool first = false;
  state_->add([&](State::Delivery& d) {
    if (state_->phase != Phase::kOpen) return;  // its head can't be taken back
    first = true;
    state_->status = response.status;
    d.head = std::move(response);
    d.whole = true;
  });
  return first;
}

void Exchange::start(HttpResponse head) {
  state_->add([&](State::Delivery& d) {
    if (state_->phase != Phase::kOpen) return;
    state_->status = head.status;
    d.pieces = std::exchange(head.body, {});
    d.head = std::move(head);
  });
}

void Exchange::send(std::string piece) {
  state_->add([&](State::Delivery& d) {
    if (state_->phase != Phase::kStreaming) return;
    if (d.pieces.empty()) {
      d.pieces = std::move(piece);
    } else {
      d.pieces += piece;
    }
  });
}

void Exchange::end() {
  state_->add([&](State::Delivery& d) {
    if (state_->phase == Phase::kStreaming) d.ended = true;
  });
}

void Exchange::stay_alive(HttpResponse head, std::string piece) {
  const std::scoped_lock lock(state_->mutex);
  state_->alive_head = std::move(head);
  state_->alive_piece = std::move(piece);
}

bool Exchange::gone() const { return state_->gone; }

void Exchange::on_gone(std::function<void()> callback) {
  {
    const std::scoped_lock lock(state_->mutex);
    if (!state_->gone) {
      if (state_->phase != Phase::kEnded) state_->callback = std::move(callback);
      return;
    }
  }
  const auto shared = std::make_shared<std::function<void()>>(std::move(callback));
  if (!state_->mailbox->post([shared] { (*shared)(); })) (*shared)();
}

}  // namespace thimble
