#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "calls/tool.h"

namespace thimble {

// [train] of thimble.toml.
struct TrainSettings {
  std::string method = "lora";  // lora | dora | full
  int rank = 16;
  double alpha = 32;
  double lora_plus = 1;  // b's learning rate as a multiple of a's
  bool rslora = false;  // the adapter's scale is alpha / sqrt(rank)
  double dropout = 0;
  std::vector<std::string> targets = {"all-linear"};
  std::vector<int> layers;  // numbers of the adapted layers, ascending; empty: all
  double learning_rate = 1e-3;      // 5e-5 with method full
  std::string optimizer = "adamw";  // adamw | adamw8bit
  bool master = true;               // method full: weights are kept in f32 beside their bf16 copies
  std::string schedule = "cosine";  // cosine | linear | constant, after the warm-up
  double warmup = 0.05;             // share of all steps
  double epochs = 3;
  double revisit = 1;               // share of the rows, the hardest, that epochs after the first visit
  int batch_rows = 16;              // rows an optimizer step
  int max_tokens = 1024;            // most tokens a row
  std::string too_long = "refuse";  // refuse | drop | cut (cut.h)
  double weight_decay = 0;
  double clip = 1;  // of the gradient's norm
  // What a word of an answer without calls counts beside a token of a call. Free text can be said in many ways: at 1
  // its losses outweigh those of the calls.
  double text_weight = 1;
  double neftune = 0;  // noise on embeddings in training (arXiv 2310.05914)
  uint64_t seed = 1;
  double dev_share = 0.05;         // of train.jsonl, set aside to choose checkpoints and settings
  int evaluations = 4;             // of the dev part, spread over the run
  std::string continue_from;       // an adapter's folder, from the job's folder on; empty: a new adapter
  int metric_rows = 100;           // of the dev part, answered at every evaluation; 0: none, the dev loss chooses
  int patience = 0;                // evaluations without a better one after which training stops; 0: never
  double checkpoint_minutes = 5;   // between checkpoints; there is one at every evaluation too
  std::string precision = "bf16";  // bf16 | f32
  int memory_mb = 0;               // that training may take, by its plan; 0: what the machine has free
};

// [preference]: training on what is better and what is worse, instead of on right answers alone. Which loss reads
// which of these: train/preference_loss.h.
struct PreferenceSettings {
  std::string loss = "dpo";          // dpo | ipo | orpo | kto
  std::string file = "train.jsonl";  // in the job's folder
  double beta = 0.1;
  double label_smoothing = 0;
  double sft_weight = 0;
  double lambda = 0.1;
  double desirable_weight = 1, undesirable_weight = 1;
};

// [distill]: learning from a teacher's distributions, or from its answers.
struct DistillSettings {
  std::string kind = "forward_kl";  // forward_kl | reverse_kl | jsd (kernels/distillation.h) | sequence: its answers
  std::string teacher;              // a path or a pulled name; empty where `from` is given
  std::string adapter;              // the teacher's, a PEFT folder; relative to the job's folder
  std::string from;                 // a file in the job's folder that `thimble distill` wrote, instead of a teacher
  double beta = 0.5;                // of jsd
  double temperature = 1;
  double weight = 1;                // of the teacher beside the gold answers' cross-entropy
  double on_policy = 0;             // share of rows that are learned with the student's own answer
  double sample_temperature = 1;    // of these answers
  int max_new_tokens = 128;         // of each at most

  bool sequence() const { return kind == "sequence"; }
};

// [[mix]]: rows of another job that are learned beside this one's, asked as that job asks.
struct MixSettings {
  std::string job;    // its folder, from this job's
  double weight = 0;  // how many of its rows for each of this job's
};

// [bars]: what a result must reach for GO. Fractions from 0 to 1; what is not given does not count.
struct Bars {
  std::optional<double> exact, name_accuracy, argument_f1;  // at least
  std::optional<double> false_calls, missed_calls;          // at most
};

// [large]: an OpenAI-compatible endpoint to compare with. Never contacted unless it is given.
struct LargeSettings {
  std::string url, model, api_key_env;
  double input_price = 0, output_price = 0;  // per million tokens
};

// A use case: a folder with thimble.toml, tools.json, train.jsonl and test.jsonl.
struct Job {
  std::filesystem::path folder;
  std::string name;
  std::string description;
  std::string base = "smollm2-135m-instruct";  // a path or a pulled name
  bool tools_in_prompt = true;                 // false: the weights learn the tools, the prompt is the request alone
  bool plan = false;                           // the model writes a plan before its answer (plan.h)
  // The system message. Not given: what the model's template puts in by itself; "": an empty one.
  std::optional<std::string> system;
  TrainSettings train;
  std::optional<PreferenceSettings> preference;
  std::optional<DistillSettings> distill;
  std::vector<MixSettings> mix;
  Bars bars;
  std::optional<LargeSettings> large;
  int assess_sample = 100;   // [assess] rows of the test set
  int assess_shots = 8;      // [assess] examples in the few-shot prompt
  int max_new_tokens = 256;  // [eval]
  int eval_batch = 16;       // [eval] rows answered side by side
  std::vector<Tool> tools;

  std::filesystem::path train_file() const { return folder / "train.jsonl"; }
  // Rows that `tune` learns from; train.jsonl but for preference tuning that names another.
  std::filesystem::path tuning_file() const { return folder / (preference ? preference->file : "train.jsonl"); }
  std::filesystem::path test_file() const { return folder / "test.jsonl"; }
  std::filesystem::path runs_folder() const { return folder / "runs"; }
};

// Reads thimble.toml and tools.json. Unknown keys, wrong types and values out of range throw Error with file, line and
// the nearest known key.
Job load_job(const std::filesystem::path& folder);

// What travels with an adapter, so that a chat, an evaluation or a server asks the tuned model as it was taught.
struct JobManifest {
  std::string job;  // name
  std::string description;
  std::string base;              // as thimble.toml names it
  std::string base_fingerprint;  // ModelFile::fingerprint
  std::string call_format = "hermes";
  bool tools_in_prompt = true;
  bool plan = false;
  std::optional<std::string> system;
  std::string chat_template;             // the Jinja source that rows were rendered with
  std::optional<double> call_threshold;  // GenerateRequest::call_threshold, as the dev part gave it
  std::vector<Tool> tools;
};
std::string manifest_to_text(const JobManifest& manifest);
JobManifest parse_manifest(std::string_view text, std::string_view where);
// Throws Error where the adapter in `where` was trained on another base than `base`, whose fingerprint is given.
void check_base(const JobManifest& manifest, const std::string& where, const std::string& base,
                const std::string& fingerprint);

// Runs are folders runs/<UTC time>; one is finished when it holds `finished`, which is written last.
std::filesystem::path new_run(const Job& job);                                             // makes the folder
std::optional<std::filesystem::path> newest_run(const std::filesystem::path& job_folder);  // finished ones only
// The newest of all, where it is one that training may go on with: neither finished nor given up.
std::optional<std::filesystem::path> unfinished_run(const std::filesystem::path& job_folder);
void give_up(const std::filesystem::path& run, const std::string& why);  // writes `failed`: nobody goes on with it
// Where a run with method full leaves its model: a .gguf file, or a folder. Empty: the run trained an adapter.
std::filesystem::path run_model(const std::filesystem::path& run);
std::filesystem::path run_result(const std::filesystem::path& run);  // that, or else the adapter's folder
void mark_finished(const std::filesystem::path& run);

}  // namespace thimble
