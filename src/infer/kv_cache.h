#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <vector>

#include "core/buffer.h"
#include "infer/layer_state.h"
#include "kernels/attention_plan.h"
#include "kernels/kv_layout.h"

namespace thimble {

struct KvCacheOptions {
  int layers = 0;
  int kv_heads = 0;
  int head_dim = 0;
  int64_t capacity = 8192;  // tokens, of all sequences and of what is remembered
  KvType type = KvType::kF16;
};

// Keys and values of all sequences as one prefix tree: a beginning that several sequences share is stored and
// computed once, over requests, evaluation rows and turns. What a sequence leaves behind stays until its space is
// needed, least recently used first. Trees of different adapters are apart: their keys differ for the same tokens.
class KvCache : public LayerState {
 public:
  explicit KvCache(const KvCacheOptions& options);
  ~KvCache() override;

  // Starts a sequence that will hold `tokens`; as many of its first tokens as the tree knows (never the last one,
  // whose logits are wanted) are there at once: length() tells how many.
  Sequence open(int adapter, std::span<const int32_t> tokens);
  // Makes room for tokens that follow and notes them; their keys and values are written by the next forward pass.
  // Returns false, changing nothing, where the cache is full of sequences that are in use.
  bool append(Sequence sequence, std::span<const int32_t> tokens);
  int32_t length(Sequence sequence) const;
  // The plan's segments for the last `count` tokens of a sequence whose rows begin at query_first.
  void plan(Sequence sequence, int32_t count, int32_t query_first, std::vector<AttentionSegment>& out) const;
  // Slots of the last `count` tokens, in order.
  void slots(Sequence sequence, int32_t count, std::vector<int32_t>& out) const;
  void tokens(Sequence sequence, int32_t count, std::vector<int32_t>& out) const;  // the last `count`, in order
  void close(Sequence sequence);  // what it held stays in the tree until evicted
  void forget();                  // what no open sequence holds

  Snapshot snapshot(Sequence sequence) const override;
  void roll_back(const Snapshot& snapshot) override;

  std::byte* keys(int layer) const;  // [capacity] slots in layout()
  std::byte* values(int layer) const;
  const KvLayout& layout() const { return layout_; }
  int64_t capacity() const { return options_.capacity; }
  int64_t used() const;  // slots that hold something, remembered ones included
  int64_t held() const;  // slots of open sequences
  size_t bytes() const;  // of all keys and values

 private:
  struct Node;
  struct OpenSequence;

  Node* root(int adapter);
  Node* add_leaf(Node* parent);
  bool grows(const Node* node) const;
  void split(Node* node, int32_t at);
  bool evict();
  bool reserve(int64_t count);
  int64_t place(int64_t count, int64_t position);
  void release_slots(Node* node, int32_t from);
  void touch(Node* node);
  std::vector<KeyRange> ranges(const Node* leaf) const;
  template <class Member>
  static void last_of_path(const Node* node, int32_t count, Member list, std::vector<int32_t>& out);
  OpenSequence& get(Sequence sequence) const;

  KvCacheOptions options_;
  KvLayout layout_;
  std::vector<ByteBuffer> keys_, values_;
  std::map<int, std::unique_ptr<Node>> roots_;
  std::vector<std::unique_ptr<OpenSequence>> sequences_;
  std::vector<uint8_t> occupied_;  // by slot
  int64_t used_ = 0;
  uint64_t clock_ = 0;
};

}  // namespace thimble
