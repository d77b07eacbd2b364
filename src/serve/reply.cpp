#include "serve/reply.h"

#include <algorithm>

namespace thimble {

HttpResponse event_stream() {
  return {.status = 200,
          .type = "text/event-stream; charset=utf-8",
          .body = "",
          // Proxies must not wait for the answer's end.
          .headers = {{"Cache-Control", "no-cache"}, {"X-Accel-Buffering", "no"}}};
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
