#include "infer/kv_cache.h"

#include <algorithm>
#include <cassert>

namespace thimble {

// An edge of the tree: consecutive tokens and where their keys stand.
struct KvCache::Node {
  Node* parent = nullptr;
  std::vector<int32_t> tokens;
  std::vector<int32_t> slots;  // one a token
  std::vector<std::unique_ptr<Node>> children;
  int users = 0;  // open sequences whose path goes through this node
  uint64_t last_use = 0;
};

struct KvCache::OpenSequence {
  Node* leaf = nullptr;
  int32_t length = 0;
};

KvCache::KvCache(const KvCacheOptions& options)
    : options_(options), layout_{options.type, options.kv_heads, options.head_dim} {
  // A short text would otherwise take 2 MB for each layer's keys and again for its values.
  constexpr int64_t kShortText = 512;
  for (int i = 0; i < options.layers; ++i) {
    keys_.emplace_back(layout_.bytes(options.capacity), layout_.bytes(kShortText));
    values_.emplace_back(layout_.bytes(options.capacity), layout_.bytes(kShortText));
  }
  occupied_.resize(static_cast<size_t>(options.capacity));
}

KvCache::~KvCache() = default;

std::byte* KvCache::keys(int layer) const { return keys_[static_cast<size_t>(layer)].data(); }
std::byte* KvCache::values(int layer) const { return values_[static_cast<size_t>(layer)].data(); }
int64_t KvCache::used() const { return used_; }
size_t KvCache::bytes() const {
  return 2 * static_cast<size_t>(options_.layers) * layout_.bytes(options_.capacity);
}

KvCache::Node* KvCache::root(int adapter) {
  auto& node = roots_[adapter];
  if (!node) node = std::make_unique<Node>();
  return node.get();
}

KvCache::OpenSequence& KvCache::get(Sequence sequence) const {
  assert(sequence >= 0 && static_cast<size_t>(sequence) < sequences_.size());
  assert(sequences_[static_cast<size_t>(sequence)]);
  return *sequences_[static_cast<size_t>(sequence)];
}

int32_t KvCache::length(Sequence sequence) const { return get(sequence).length; }

void KvCache::touch(Node* node) {
  ++clock_;
  for (; node != nullptr; node = node->parent) node->last_use = clock_;
}

// Cuts a node in two after `at` tokens; the node itself keeps the first part, so that children of its parent stay
// valid, and a new child takes the rest with all that hung below.
void KvCache::split(Node* node, int32_t at) {
  auto rest = std::make_unique<Node>();
  rest->parent = node;
  rest->tokens.assign(node->tokens.begin() + at, node->tokens.end());
  rest->slots.assign(node->slots.begin() + at, node->slots.end());
  rest->children = std::move(node->children);
  rest->last_use = node->last_use;
  rest->users = node->users;
  for (auto& child : rest->children) child->parent = rest.get();
  node->tokens.resize(static_cast<size_t>(at));
  node->slots.resize(static_cast<size_t>(at));
  node->children.clear();
  for (auto& open : sequences_)
    if (open && open->leaf == node) open->leaf = rest.get();
  node->children.push_back(std::move(rest));
}

bool KvCache::grows(const Node* node) const {
  return std::any_of(sequences_.begin(), sequences_.end(), [&](const auto& s) { return s && s->leaf == node; });
}

KvCache::Node* KvCache::add_leaf(Node* parent) {
  auto leaf = std::make_unique<Node>();
  leaf->parent = parent;
  leaf->users = 1;
  leaf->last_use = clock_;
  return parent->children.emplace_back(std::move(leaf)).get();
}

KvCache::Sequence KvCache::open(int adapter, std::span<const int32_t> tokens) {
  Node* node = root(adapter);
  int32_t known = 0;
  const auto limit = static_cast<int32_t>(tokens.size()) - 1;  // the last token is always computed
  while (known < limit) {
    Node* next = nullptr;
    for (auto& child : node->children)
      if (!child->tokens.empty() && child->tokens.front() == tokens[static_cast<size_t>(known)]) next = child.get();
    if (next == nullptr) break;
    int32_t same = 0;
    const auto length = static_cast<int32_t>(next->tokens.size());
    while (same < length && known + same < limit &&
           next->tokens[static_cast<size_t>(same)] == tokens[static_cast<size_t>(known + same)])
      ++same;
    // Another sequence may still grow this node: what it adds must come after the cut, not under the newcomer.
    if (same < length || grows(next)) split(next, same);
    node = next;
    known += same;
    if (same < length) break;
  }
  for (Node* n = node; n != nullptr; n = n->parent) ++n->users;
  touch(node);

  auto open = std::make_unique<OpenSequence>();
  open->leaf = add_leaf(node);  // a sequence grows in a leaf of its own
  open->length = known;
  const auto free = std::find(sequences_.begin(), sequences_.end(), nullptr);
  const auto id = static_cast<Sequence>(free - sequences_.begin());
  if (free == sequences_.end()) sequences_.push_back(std::move(open));
  else *free = std::move(open);
  return id;
}

// Frees the least recently used leaf that nobody uses; false where there is none.
bool KvCache::evict() {
  Node* oldest = nullptr;
  const auto visit = [&](auto&& self, Node* node) -> void {
    for (auto& child : node->children) self(self, child.get());
    if (node->parent != nullptr && node->users == 0 && node->children.empty() &&
        (oldest == nullptr || node->last_use < oldest->last_use))
      oldest = node;
  };
  for (auto& [adapter, tree] : roots_) visit(visit, tree.get());
  if (oldest == nullptr) return false;
  release_slots(oldest, 0);
  auto& siblings = oldest->parent->children;
  std::erase_if(siblings, [&](const auto& n) { return n.get() == oldest; });
  return true;
}

void KvCache::forget() {
  while (evict()) {
  }
}

bool KvCache::reserve(int64_t count) {
  while (options_.capacity - used_ < count)
    if (!evict()) return false;
  return true;
}

void KvCache::release_slots(Node* node, int32_t from) {
  for (size_t i = static_cast<size_t>(from); i < node->slots.size(); ++i) {
    occupied_[static_cast<size_t>(node->slots[i])] = 0;
    --used_;
  }
  node->slots.resize(static_cast<size_t>(from));
  node->tokens.resize(static_cast<size_t>(from));
}

bool KvCache::append(Sequence sequence, std::span<const int32_t> tokens) {
  OpenSequence& open = get(sequence);
  const auto count = static_cast<int64_t>(tokens.size());
  if (!reserve(count)) return false;
  Node* leaf = open.leaf;
  int64_t slot = leaf->slots.empty() ? options_.capacity : leaf->slots.back() + 1;
  for (int64_t i = 0; i < count; ++i, ++slot) {
    if (slot == options_.capacity || occupied_[static_cast<size_t>(slot)] != 0)
      slot = place(count - i, open.length + i);
    occupied_[static_cast<size_t>(slot)] = 1;
    leaf->slots.push_back(static_cast<int32_t>(slot));
    leaf->tokens.push_back(tokens[static_cast<size_t>(i)]);
  }
  used_ += count;
  open.length += static_cast<int32_t>(count);
  return true;
}

// Where a run of `count` tokens from a position on begins, or as much of it as fits. Consecutive slots are read many
// times faster than scattered ones, so every sequence should find room to grow, and what is remembered gives way to
// that: a full cache would otherwise hand out single slots. The middle of the longest free run leaves as much to whoever
// grows in front of it. There, blocks of slots begin where attention's blocks of positions do.
int64_t KvCache::place(int64_t count, int64_t position) {
  constexpr int64_t kRoom = 2 * kKvSlots;
  const int64_t wanted = std::min(count, kRoom) + std::min(kRoom, options_.capacity / 16);
  int64_t begin = 0, length = 0;
  do {
    length = 0;
    for (int64_t first = 0, i = 0; i <= options_.capacity; ++i) {
      if (i < options_.capacity && occupied_[static_cast<size_t>(i)] == 0) continue;
      if (i - first > length) {
        begin = first;
        length = i - first;
      }
      first = i + 1;
    }
  } while (length < wanted && evict());
  assert(length > 0);
  if (begin == 0 || length <= count) return begin;
  const int64_t middle = begin + (length - count) / 2;
  const int64_t aligned = middle + ((position - middle) % kKvSlots + kKvSlots) % kKvSlots;
  return aligned + count <= begin + length ? aligned : middle;
}

std::vector<KeyRange> KvCache::ranges(const Node* leaf) const {
  std::vector<const Node*> path;
  for (const Node* n = leaf; n != nullptr; n = n->parent) path.push_back(n);
  std::vector<KeyRange> out;
  for (auto n = path.rbegin(); n != path.rend(); ++n)
    for (const int32_t slot : (*n)->slots) {
      if (!out.empty() && out.back().first + out.back().count == slot) ++out.back().count;
      else out.push_back({slot, 1});
    }
  return out;
}

void KvCache::plan(Sequence sequence, int32_t count, int32_t query_first, std::vector<AttentionSegment>& out) const {
  const OpenSequence& open = get(sequence);
  const std::vector<KeyRange> all = ranges(open.leaf);
  const int32_t first = open.length - count;  // position of the first query row
  std::vector<KeyRange> past;
  int32_t position = 0;
  for (const KeyRange& range : all) {
    const int32_t end = position + range.count;
    if (position < first) {
      const int32_t take = std::min(end, first) - position;
      past.push_back({range.first, take});
    }
    if (end > first) {
      const int32_t skip = std::max(0, first - position);
      AttentionSegment segment;
      segment.query_first = query_first + position + skip - first;
      segment.query_count = range.count - skip;
      segment.key_first = range.first + skip;
      segment.position = position + skip;
      segment.ancestors = past;
      out.push_back(std::move(segment));
      // Later segments see this one; a range that was cut in two grows together again.
      if (skip > 0) past.back().count += range.count - skip;
      else past.push_back(range);
    }
    position = end;
  }
}

// The last `count` of one list of every node on the path, in order. Up the path: a node that was this sequence's own
// may have been cut since, because another one shares its beginning.
template <class Member>
void KvCache::last_of_path(const Node* node, int32_t count, Member list, std::vector<int32_t>& out) {
  const auto first = static_cast<std::ptrdiff_t>(out.size());
  for (; count > 0; node = node->parent) {
    assert(node != nullptr);
    const std::vector<int32_t>& values = node->*list;
    const auto take = std::min<std::ptrdiff_t>(count, static_cast<std::ptrdiff_t>(values.size()));
    out.insert(out.begin() + first, values.end() - take, values.end());
    count -= static_cast<int32_t>(take);
  }
}

void KvCache::slots(Sequence sequence, int32_t count, std::vector<int32_t>& out) const {
  last_of_path(get(sequence).leaf, count, &Node::slots, out);
}

void KvCache::tokens(Sequence sequence, int32_t count, std::vector<int32_t>& out) const {
  last_of_path(get(sequence).leaf, count, &Node::tokens, out);
}

void KvCache::close(Sequence sequence) {
  OpenSequence& open = get(sequence);
  Node* leaf = open.leaf;
  touch(leaf);
  for (Node* n = leaf; n != nullptr; n = n->parent) --n->users;
  if (leaf->tokens.empty() && leaf->children.empty()) {
    auto& siblings = leaf->parent->children;
    std::erase_if(siblings, [&](const auto& n) { return n.get() == leaf; });
  }
  sequences_[static_cast<size_t>(sequence)] = nullptr;
}

int64_t KvCache::held() const {
  int64_t count = 0;
  const auto visit = [&](auto&& self, const Node* node) -> void {
    if (node->users > 0) count += static_cast<int64_t>(node->slots.size());
    for (const auto& child : node->children) self(self, child.get());
  };
  for (const auto& [adapter, tree] : roots_) visit(visit, tree.get());
  return count;
}

LayerState::Snapshot KvCache::snapshot(Sequence sequence) const { return {sequence, length(sequence)}; }

void KvCache::roll_back(const Snapshot& snapshot) {
  OpenSequence& open = get(snapshot.sequence);
  int32_t drop = open.length - snapshot.length;
  assert(drop >= 0);
  open.length = snapshot.length;
  // Nodes that became shared since the snapshot are left to the others; the sequence goes on from where it was.
  while (drop > static_cast<int32_t>(open.leaf->slots.size())) {
    drop -= static_cast<int32_t>(open.leaf->slots.size());
    Node* left = open.leaf;
    Node* parent = left->parent;
    --left->users;
    open.leaf = parent;
    if (left->users == 0 && left->children.empty()) {
      release_slots(left, 0);
      std::erase_if(parent->children, [&](const auto& n) { return n.get() == left; });
    }
  }
  Node* node = open.leaf;
  const int32_t keep = static_cast<int32_t>(node->slots.size()) - drop;
  if (node->users == 1 && node->children.empty()) {
    release_slots(node, keep);
    return;
  }
  open.leaf = nullptr;  // so that the cut does not take this sequence along
  if (drop > 0) {
    split(node, keep);
    --node->children.back()->users;
  }
  open.leaf = add_leaf(node);
}

}  // namespace thimble
