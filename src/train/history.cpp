#include "train/history.h"

#include "calls/json.h"

namespace thimble {
namespace {

// Every part of a point with its name: visit(name, value), the same list for writing and for reading.
template <class Point, class Visit>
void for_parts(Point& p, const Visit& visit) {
  visit("step", p.step);
  visit("tokens", p.tokens);
  visit("loss", p.loss);
  visit("smoothed_loss", p.smoothed_loss);
  visit("learning_rate", p.learning_rate);
  visit("gradient_norm", p.gradient_norm);
  visit("tokens_per_second", p.tokens_per_second);
  visit("seconds", p.seconds);
  if (p.step > 0) visit("seconds_left", p.seconds_left);
  visit("peak_share", p.peak_share);
  visit("dev_loss", p.dev_loss);
  visit("metric", p.metric);
  visit("dev_reward_accuracy", p.dev_accuracy);
  visit("dev_reward_margin", p.dev_margin);
  visit("sampled_tokens", p.sampled_tokens);
}

template <class T>
void write(Json& json, const char* name, const T& value) {
  json[name] = value;
}
template <class T>
void write(Json& json, const char* name, const std::optional<T>& value) {
  if (value) json[name] = *value;
}

template <class T>
void read(const Json& json, const char* name, T& value) {
  json.at(name).get_to(value);
}
template <class T>
void read(const Json& json, const char* name, std::optional<T>& value) {
  if (json.contains(name)) value = json.at(name).get<T>();
}

}  // namespace

Json point_to_json(const HistoryPoint& point) {
  Json json = Json::object();
  for_parts(point, [&](const char* name, const auto& value) { write(json, name, value); });
  return json;
}

HistoryPoint point_from_json(const Json& json) {
  HistoryPoint point;
  for_parts(point, [&](const char* name, auto& value) { read(json, name, value); });
  return point;
}

}  // namespace thimble
