#include "serve/reply.h"

#include <algorithm>

namespace thimble {

int64_t client_of(const Exchange& exchange) {
  const std::string& name = exchange.key() ? exchange.key()->name : exchange.request().peer;
  return static_cast<int64_t>(std::hash<std::string>{}(name));
}

HttpResponse event_stream() {
  return {.status = 200,
          .type = "text/event-stream; charset=utf-8",
          .body = "",
          // Proxies must not wait for the answer's end.
          .headers = {{"Cache-Control", "no-cache"}, {"X-Accel-Buffering", "no"}}};
}

void show_life_of_stream(const Exchange& exchange, std::string piece) {
  Exchange(exchange).stay_alive(event_stream(), std::move(piece));
}

std::string typed_sse(const Json& event) { return "event: " + event["type"].get<std::string>() + "\n" + sse(event); }

std::string stopped_by(const Tokenizer& tokenizer, const Answer& answer, std::span<const std::string> stops) {
  if (answer.finish != FinishReason::kStop || stops.empty()) return "";
  // Its tokens reach beyond what is left of its text by what stopped it.
  const std::string written = tokenizer.decode(answer.tokens);
  if (!written.starts_with(answer.text)) return "";
  const std::string_view cut = std::string_view(written).substr(answer.text.size());
  const auto found = std::find_if(stops.begin(), stops.end(), [&](const auto& stop) { return cut.starts_with(stop); });
  return found == stops.end() ? "" : *found;
}

Json token_logprobs(const Tokenizer& tokenizer, const Answer& answer, size_t& told) {
  const auto token_json = [&](int32_t token, float log_prob) {
    const std::string& bytes = tokenizer.token_bytes(token);
    Json list = Json::array();
    for (const char c : bytes) list.push_back(static_cast<unsigned char>(c));
    return Json{{"token", bytes}, {"logprob", std::max(log_prob, -9999.0f)}, {"bytes", std::move(list)}};
  };
  Json out = Json::array();
  for (; told < std::min(answer.tokens.size(), answer.log_probs.size()); ++told) {
    Json one = token_json(answer.tokens[told], answer.log_probs[told]);
    one["top_logprobs"] = Json::array();
    if (told < answer.top_log_probs.size())
      for (const TokenLogProb& top : answer.top_log_probs[told])
        one["top_logprobs"].push_back(token_json(top.token, top.log_prob));
    out.push_back(std::move(one));
  }
  return out;
}

}  // namespace thimble
