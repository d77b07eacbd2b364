#include "text/pre_tokenizer.h"

#include <algorithm>

#include "core/error.h"
#include "text/byte_level.h"
#include "text/unicode_additions.h"

namespace thimble {
namespace {

struct Stretch {
  size_t begin, end;
  bool matches;
};

void emit(const Piece& piece, size_t begin, size_t end, std::vector<Piece>& out) {
  if (begin < end) out.push_back({piece.text.substr(begin, end - begin), piece.starts_input && begin == 0});
}

void split(const Pattern& pattern, PreTokenizer::Behavior behavior, bool invert, const Piece& piece, bool additions,
           std::vector<Piece>& out) {
  using Behavior = PreTokenizer::Behavior;
  const std::string_view text = piece.text;
  if (behavior == Behavior::kIsolated) {
    size_t previous = 0;
    pattern.for_each(text, additions, [&](size_t begin, size_t end) {
      emit(piece, previous, begin, out);
      emit(piece, begin, end, out);
      previous = end;
    });
    return emit(piece, previous, text.size(), out);
  }
  thread_local std::vector<Stretch> stretches;
  stretches.clear();
  size_t previous = 0;
  pattern.for_each(text, additions, [&](size_t begin, size_t end) {
    if (previous != begin) stretches.push_back({previous, begin, invert});
    stretches.push_back({begin, end, !invert});
    previous = end;
  });
  if (previous != text.size()) stretches.push_back({previous, text.size(), invert});

  switch (behavior) {
    case Behavior::kRemoved:
      for (const Stretch& s : stretches)
        if (!s.matches) emit(piece, s.begin, s.end, out);
      break;
    case Behavior::kContiguous:
      for (size_t i = 0; i < stretches.size();) {
        size_t last = i;
        while (last + 1 < stretches.size() && stretches[last + 1].matches == stretches[i].matches) ++last;
        emit(piece, stretches[i].begin, stretches[last].end, out);
        i = last + 1;
      }
      break;
    case Behavior::kMergedWithPrevious:
      // Of several matches in a row only the first joins what lies before it.
      for (size_t i = 0; i < stretches.size(); ++i) {
        const bool joins = i + 1 < stretches.size() && stretches[i + 1].matches && !stretches[i].matches;
        emit(piece, stretches[i].begin, stretches[i + joins].end, out);
        i += joins;
      }
      break;
    case Behavior::kMergedWithNext:
      for (size_t i = 0; i < stretches.size(); ++i) {
        const bool joins = i + 1 < stretches.size() && stretches[i].matches && !stretches[i + 1].matches;
        emit(piece, stretches[i].begin, stretches[i + joins].end, out);
        i += joins;
      }
      break;
    case Behavior::kIsolated:
      break;
  }
}

const std::string& keep(std::deque<std::string>& storage, std::string text) {
  storage.push_back(std::move(text));
  return storage.back();
}

struct RunStep {
  std::vector<Piece>& in;
  std::vector<Piece>& out;
  std::deque<std::string>& storage;
  bool additions, last;

  void operator()(const PreTokenizer::Split& step) const {
    for (const Piece& piece : in) split(step.pattern, step.behavior, step.invert, piece, additions, out);
  }

  void operator()(const PreTokenizer::Metaspace& step) const {
    using Prepend = PreTokenizer::Metaspace::Prepend;
    const Pattern mark = Pattern::literal(step.replacement);
    for (Piece piece : in) {
      std::string text;
      text.reserve(piece.text.size() * 3 / 2 + step.replacement.size());
      for (const char c : piece.text) {
        if (c == ' ') {
          text += step.replacement;
        } else {
          text += c;
        }
      }
      const bool wanted = step.prepend == Prepend::kAlways || (step.prepend == Prepend::kFirst && piece.starts_input);
      if (wanted && !text.starts_with(step.replacement)) text.insert(0, step.replacement);
      piece.text = keep(storage, std::move(text));
      if (step.split) {
        split(mark, PreTokenizer::Behavior::kMergedWithNext, false, piece, false, out);
      } else {
        emit(piece, 0, piece.text.size(), out);
      }
    }
  }

  void operator()(const PreTokenizer::ByteLevel& step) const {
    static const Pattern gpt2 = Pattern::regex(kGpt2Pattern);
    const size_t first = out.size();
    for (Piece piece : in) {
      if (step.add_prefix_space && !piece.text.starts_with(' '))
        piece.text = keep(storage, std::string(1, ' ').append(piece.text));
      if (step.use_regex) {
        split(gpt2, PreTokenizer::Behavior::kIsolated, false, piece, additions, out);
      } else {
        emit(piece, 0, piece.text.size(), out);
      }
    }
    if (last) return;
    for (size_t i = first; i < out.size(); ++i) out[i].text = keep(storage, bytes_to_byte_level(out[i].text));
  }
};

}  // namespace

void PreTokenizer::add(Step step) {
  // Each ByteLevel may double the text.
  constexpr ptrdiff_t kMostByteLevels = 4;
  steps_.push_back(std::move(step));
  const auto is_byte_level = [](const Step& s) { return std::holds_alternative<ByteLevel>(s); };
  if (std::count_if(steps_.begin(), steps_.end(), is_byte_level) > kMostByteLevels)
    throw Error("tokenizer.json: pre_tokenizer: more than four ByteLevel steps are not supported");
}

std::optional<WordRule> PreTokenizer::word_rule() const {
  const auto isolated = [](const Step& step) {
    const auto* split = std::get_if<Split>(&step);
    return split != nullptr && split->behavior == Behavior::kIsolated && !split->invert ? &split->pattern : nullptr;
  };
  const auto* last = steps_.empty() ? nullptr : std::get_if<ByteLevel>(&steps_.back());
  if (last == nullptr || last->add_prefix_space) return std::nullopt;
  size_t step = 0;
  const Pattern* pattern = isolated(steps_[0]);
  const bool digits = pattern != nullptr && pattern->finds_digits();
  if (digits) pattern = isolated(steps_[++step]);
  std::optional<WordRule> rule;
  if (pattern != nullptr && !last->use_regex) {
    rule = pattern->word_rule();
    ++step;
  } else if (last->use_regex) {
    rule = WordRule::kGpt2;
  }
  if (step + 1 != steps_.size() || !digits) return step + 1 == steps_.size() ? rule : std::nullopt;
  return rule == WordRule::kGpt2 ? std::optional(WordRule::kGpt2SingleDigits) : std::nullopt;
}

void PreTokenizer::run(Piece input, std::deque<std::string>& storage, std::vector<Piece>& pieces) const {
  if (input.text.empty()) return;
  if (steps_.empty()) {
    pieces.push_back(input);
    return;
  }
  const bool additions = has_unicode_additions(input.text);
  thread_local std::vector<Piece> in, out;
  in.assign(1, input);
  for (const Step& step : steps_) {
    out.clear();
    std::visit(RunStep{in, out, storage, additions, &step == &steps_.back()}, step);
    in.swap(out);
  }
  pieces.insert(pieces.end(), in.begin(), in.end());
  constexpr size_t kKept = 1 << 18;  // pieces; a thread that once read a book need not stay that large
  if (in.capacity() > kKept) in = {};
  if (out.capacity() > kKept) out = {};
}

}  // namespace thimble
