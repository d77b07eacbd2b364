#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "infer/sampling_options.h"

namespace thimble {

// One struct and one function a command. main.cpp fills the struct from the command line; the function does the
// work, shows progress on standard error and results on standard output, and returns the exit status.
enum ExitStatus { kOk = 0, kFailed = 1, kUserError = 2, kNoGo = 3, kInterrupted = 130 };

struct ModelOptions {
  std::string model;              // a path or a pulled name; empty: the job's base, or the default model
  std::string adapter;            // a PEFT folder; empty: none, or the newest run of a job
  std::string precision = "fast"; // fast | f32
  int64_t context = 0;            // tokens of cache; 0: what the model was trained for, at most 8,192
  std::string draft;              // a smaller model of the same vocabulary that guesses ahead; empty: none
  bool speculate = true;          // forced and guessed text in one pass; the answers are the same without
  std::string kv_type;            // f32 | f16 | bf16 | q8; empty: f16, with precision f32 that
};

struct GenerateOptions {
  SamplingOptions sampling;
  std::vector<std::string> logit_bias;  // TOKEN=BIAS, where only the model knows what token that is
  int max_tokens = 256;
  int min_tokens = 0;
  std::string cut_prompt;  // start | end: what goes of a prompt that is too long; empty: refuse it
  std::vector<std::string> stop;
};

struct PullOptions { std::string source; };
struct InfoOptions { std::string model; bool cpu = false; bool json = false; };
struct RunOptions {
  ModelOptions model;
  GenerateOptions generate;
  std::string prompt;
  std::filesystem::path logits;  // f32 logits of every prompt position, safetensors; empty: generate
  bool ignore_end = false;
  bool json = false;
  std::optional<int> log_probs;  // so many alternatives of each token; only with json
};
struct ChatOptions {
  ModelOptions model;       // model may also be a job folder
  GenerateOptions generate;
  std::string system;
  bool unconstrained = false;
};
struct BenchOptions {
  ModelOptions model;
  std::vector<int> prompts = {512};
  std::vector<int> generate = {64};
  std::vector<int> depths;  // positions before decoding
  std::vector<int> batch;   // sequences side by side
  int repeat = 3;
  bool start_up = true;     // also a new process's first token
  bool json = false;
  bool markdown = false;
};
struct ServeOptions {
  std::vector<std::string> models;    // use-case folders, paths, pulled names
  std::vector<std::string> adapters;  // NAME=FOLDER
  std::string host = "127.0.0.1";
  uint16_t port = 8080;
  std::string certificate, key;  // PEM files; empty: no TLS
  std::filesystem::path keys;    // of API keys; empty: the usual file where it holds any
  bool no_keys = false;          // ask for none, whoever reaches the address
  std::vector<std::string> allowed_hosts, allowed_origins;
  bool offline = false;          // connect to nobody
  std::string precision = "fast";
  std::string kv_type;
  int64_t context = 16384;  // tokens of key-value cache of every base model
  int parallel = 32;        // answers side by side
  int queue = 256;          // answers that are made or wait
  int max_tokens = 1024;    // of an answer whose request does not say
  double time_limit = 600;  // seconds from a request to its answer's end; 0: none
  double drain_wait = 5;    // seconds after SIGTERM in which requests are taken while others run
  double ping = 15;         // seconds of silence after which a stream shows that it lives; 0: never
  int memory_mb = 0;        // of models and caches; 0: what is free
  bool speculate = true;
  bool quiet = false;  // no line a request
  std::filesystem::path log_contents;  // what is asked and answered goes there; empty: nowhere
  int keep_contents = 0;               // days; 0: for ever
};
struct TuneOptions {
  std::filesystem::path job;
  std::string model;       // overrides the job's base
  bool dry_run = false;    // only the report before step 1
  std::string resume;      // a run folder to go on with
  bool fresh = false;      // a new run, also where an unfinished one could be gone on with
  bool json = false;       // an object a line for every step, the result last
  bool sweep = false;      // try learning rates and ranks instead
  double minutes = 30;     // that the sweep may take
};
struct PreferencesOptions {
  std::filesystem::path job;
  ModelOptions model;
  bool base = false;       // without any adapter
  int samples = 4;         // answers to each row
  int keep = 1;            // most wrong ones of a row
  double temperature = 1;
  int limit = 0;           // first N rows only; 0: all
  bool force = false;      // replace preferences.jsonl
};
struct DistillOptions {
  std::filesystem::path job;
  int top = 10;        // tokens at each place
  bool force = false;  // replace distill.jsonl
};
struct EvalOptions {
  std::filesystem::path job;
  std::filesystem::path test;
  bool dev = false;        // the dev part of train.jsonl instead
  ModelOptions model;
  bool base = false;       // without any adapter
  bool unconstrained = false;
  int shots = 0;           // few-shot examples from train.jsonl
  std::string tools_in_prompt;  // "", "yes", "no": overrides the job
  int limit = 0;           // first N rows only; 0: all
  int batch = 0;           // rows answered side by side; 0: what the job says
  std::optional<double> call_threshold;  // overrides what the adapter's manifest says
  bool json = false;
  std::filesystem::path predictions;  // every row's answer as JSONL
  std::filesystem::path prompts;      // what would be asked as JSONL, and nothing is answered
};
struct GrammarOptions {
  std::filesystem::path job;
  std::string form = "gbnf";  // gbnf | ebnf
};
struct AssessOptions { std::filesystem::path job; std::string model; bool json = false; };
struct MakeOptions {
  std::filesystem::path job;
  std::string model;
  std::string resume;  // a run folder whose training to go on with
  bool fresh = false;  // as TuneOptions
  bool json = false;
};
struct MergeOptions {
  std::string model;
  std::vector<std::string> adapters;  // PEFT folders, GGUF LoRA files or job folders
  std::vector<double> weights;        // of each; empty: 1
  std::string mix = "concatenate";    // concatenate | linear (adapter_mix.h)
  std::filesystem::path out;
  std::string type = "f16";
  bool adapter_only = false;          // write an adapter instead of a model: a PEFT folder, or FILE.gguf
};
struct PerplexityOptions {
  ModelOptions model;              // its context: tokens a chunk
  std::string reference;           // compare with this model; empty: perplexity alone
  std::string reference_precision; // empty: as the model's
  std::filesystem::path text;
  int64_t chunks = 0;              // 0: all
  bool json = false;
};
struct QuantizeOptions {
  std::string model;
  std::filesystem::path out;
  std::string type;
  std::string head;                // empty: as formats/stored_types.h says
  std::filesystem::path check;     // a text to compare the two models on; empty: none
  int64_t context = 512;           // tokens a chunk of that text
  int64_t chunks = 0;              // 0: all
  std::string precision = "fast";  // of the comparison
  bool force = false;              // replace what is there
  bool json = false;
};

struct KeysOptions {
  std::filesystem::path file;  // empty: default_keys_file()
  std::string name;
  std::vector<std::string> models;  // empty: all
  int requests_per_minute = 0;      // 0: as many as come
  int tokens_per_minute = 0;
  bool json = false;
};

int pull_command(const PullOptions& options);
int info_command(const InfoOptions& options);
int run_command(const RunOptions& options);
int chat_command(const ChatOptions& options);
int bench_command(const BenchOptions& options);
int serve_command(const ServeOptions& options);
int tune_command(const TuneOptions& options);
int sweep_command(const TuneOptions& options);
int preferences_command(const PreferencesOptions& options);
int distill_command(const DistillOptions& options);
int eval_command(const EvalOptions& options);
int grammar_command(const GrammarOptions& options);
int assess_command(const AssessOptions& options);
int make_command(const MakeOptions& options);
int merge_command(const MergeOptions& options);
int perplexity_command(const PerplexityOptions& options);
int quantize_command(const QuantizeOptions& options);
int keys_add_command(const KeysOptions& options);
int keys_list_command(const KeysOptions& options);
int keys_remove_command(const KeysOptions& options);

}  // namespace thimble
