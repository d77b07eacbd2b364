#include "route/remote_model.h"

#include <curl/curl.h>
#include <fmt/core.h>

#include <cstdlib>
#include <memory>

#include "core/clock.h"
#include "core/error.h"

namespace thimble {
namespace {

constexpr size_t kMostBytes = 16 << 20;  // of an answer

size_t collect(char* data, size_t size, size_t count, void* user) {
  auto& body = *static_cast<std::string*>(user);
  if (body.size() + size * count > kMostBytes) return 0;  // curl reports a write error
  body.append(data, size * count);
  return size * count;
}

std::string endpoint(std::string url) {
  while (url.ends_with('/')) url.pop_back();
  if (!url.ends_with("/v1")) url += "/v1";
  return url + "/chat/completions";
}

Json message(const Turn& turn) {
  Json out{{"role", turn.role}, {"content", turn.content}};
  if (!turn.call_id.empty()) out["tool_call_id"] = turn.call_id;
  if (turn.role == "tool" && !turn.name.empty()) out["name"] = turn.name;
  int number = 0;
  for (const Call& call : turn.calls)
    out["tool_calls"].push_back({{"id", fmt::format("call_{}", number++)},
                                 {"type", "function"},
                                 {"function", {{"name", call.name}, {"arguments", write_json(call.arguments)}}}});
  return out;
}

std::string post(const RemoteModel& remote, const std::string& url, const std::string& body, long& status) {
  const std::unique_ptr<CURL, void (*)(CURL*)> curl(curl_easy_init(), curl_easy_cleanup);
  if (!curl) throw Error("the HTTP client can't be started");
  curl_slist* list = curl_slist_append(nullptr, "Content-Type: application/json");
  if (!remote.api_key_env.empty()) {
    const char* key = std::getenv(remote.api_key_env.c_str());
    if (key == nullptr || *key == '\0') {
      curl_slist_free_all(list);
      throw Error(fmt::format("{}: the environment variable {} (large.api_key_env) is not set; export the key in it",
                              url, remote.api_key_env));
    }
    list = curl_slist_append(list, fmt::format("Authorization: Bearer {}", key).c_str());
  }
  const std::unique_ptr<curl_slist, void (*)(curl_slist*)> headers(list, curl_slist_free_all);
  std::string answer;
  curl_easy_setopt(curl.get(), CURLOPT_URL, url.c_str());
  curl_easy_setopt(curl.get(), CURLOPT_PROTOCOLS_STR, "http,https");
  curl_easy_setopt(curl.get(), CURLOPT_HTTPHEADER, headers.get());
  curl_easy_setopt(curl.get(), CURLOPT_POSTFIELDS, body.c_str());
  curl_easy_setopt(curl.get(), CURLOPT_POSTFIELDSIZE, static_cast<long>(body.size()));
  curl_easy_setopt(curl.get(), CURLOPT_WRITEFUNCTION, collect);
  curl_easy_setopt(curl.get(), CURLOPT_WRITEDATA, &answer);
  curl_easy_setopt(curl.get(), CURLOPT_TIMEOUT_MS, static_cast<long>(remote.timeout_s * 1000));
  curl_easy_setopt(curl.get(), CURLOPT_CONNECTTIMEOUT_MS, 10000L);
  curl_easy_setopt(curl.get(), CURLOPT_NOSIGNAL, 1L);
  const CURLcode code = curl_easy_perform(curl.get());
  if (code != CURLE_OK)
    throw Error(fmt::format("{}: {}; check large.url in thimble.toml and that the endpoint runs", url,
                            curl_easy_strerror(code)));
  curl_easy_getinfo(curl.get(), CURLINFO_RESPONSE_CODE, &status);
  return answer;
}

RemoteAnswer read_completion(const Json& body) {
  RemoteAnswer out;
  const Json& said = body.at("choices").at(0).at("message");
  if (!said.is_object()) throw Error("the answer's message is not an object");
  if (said.contains("content") && said["content"].is_string()) out.text = said["content"].get<std::string>();
  if (said.contains("tool_calls") && said["tool_calls"].is_array()) {
    for (const Json& item : said["tool_calls"]) {
      Call call;
      call.name = item.at("function").at("name").get<std::string>();
      const Json& arguments = item.at("function").at("arguments");
      std::string reason;
      const auto parsed = arguments.is_string() ? try_parse_json(arguments.get_ref<const std::string&>(), &reason)
                                                : std::optional<Json>(arguments);
      if (parsed && parsed->is_object()) {
        call.arguments = *parsed;
        out.calls.push_back(std::move(call));
      } else {
        out.problems.push_back(fmt::format("arguments of {} are not a JSON object {}", call.name, reason));
      }
    }
  }
  if (body.contains("usage") && body["usage"].is_object()) {
    out.input_tokens = body["usage"].value("prompt_tokens", int64_t{0});
    out.output_tokens = body["usage"].value("completion_tokens", int64_t{0});
  }
  return out;
}

}  // namespace

RemoteAnswer ask(const RemoteModel& remote, std::string_view system, std::span<const Turn> turns,
                 std::span<const Tool> tools, int max_tokens) {
  const std::string url = endpoint(remote.url);
  Json request{{"model", remote.model}, {"temperature", 0}, {"max_tokens", max_tokens}, {"messages", Json::array()}};
  if (!system.empty()) request["messages"].push_back({{"role", "system"}, {"content", system}});
  for (const Turn& turn : turns) request["messages"].push_back(message(turn));
  if (!tools.empty()) request["tools"] = tools_to_json(tools);

  const auto start = Clock::now();
  long status = 0;
  const std::string body = post(remote, url, write_json(request), status);
  std::string reason;
  const auto parsed = try_parse_json(body, &reason);
  if (status != 200) {
    std::string said = body.substr(0, 300);
    if (parsed && parsed->contains("error") && (*parsed)["error"].is_object())
      said = (*parsed)["error"].value("message", said);
    throw Error(fmt::format("{}: status {}: {}", url, status, said));
  }
  if (!parsed) throw Error(fmt::format("{}: the answer is not JSON ({})", url, reason));
  RemoteAnswer out;
  try {
    out = read_completion(*parsed);
  } catch (const std::exception& e) {
    throw Error(fmt::format("{}: the answer is not a chat completion ({})", url, e.what()));
  }
  out.seconds = seconds_since(start);
  out.cost = (static_cast<double>(out.input_tokens) * remote.input_price +
              static_cast<double>(out.output_tokens) * remote.output_price) *
             1e-6;
  return out;
}

}  // namespace thimble
