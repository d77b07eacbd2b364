// The command line: reads options, calls one function a command, turns errors into one line and an exit status.

#include <fmt/core.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <iterator>
#include <new>
#include <string_view>

#include "cli/commands.h"
#include "cli/generate_options.h"
#include "cli/terminal.h"
#include "core/cpu.h"
#include "core/error.h"
#include "core/thread_pool.h"
#include "infer/log_probs.h"

namespace {

using namespace thimble;

// How a model is run, whichever way it is named.
void add_engine_options(CLI::App& app, ModelOptions& o) {
  app.add_option("-a,--adapter", o.adapter, "a PEFT adapter folder, or a GGUF LoRA file");
  app.add_option("--precision", o.precision, "fast: quantised kernels; f32: exact on the dequantised weights")
      ->check(CLI::IsMember({"fast", "f32"}));
  app.add_option("-c,--context", o.context, "tokens of key-value cache (default: the model's context, at most 8192)")
      ->check(CLI::Range(int64_t{16}, int64_t{1} << 24));
  app.add_option("--kv-type", o.kv_type, "of keys and values (default: f16, with --precision f32 f32); q8: 8 bits")
      ->check(CLI::IsMember({"f32", "f16", "bf16", "q8"}));
  app.add_option("--draft", o.draft, "a smaller model of the same vocabulary that guesses ahead: the same answers");
  app.add_flag("!--no-speculation", o.speculate, "compute answers token by token: the same answers, slower");
}

void add_model_options(CLI::App& app, ModelOptions& o, bool required) {
  auto* model = app.add_option("-m,--model", o.model, "a model: .gguf file, safetensors folder, or a pulled name");
  if (required) model->required();
  add_engine_options(app, o);
}

void add_chunk_options(CLI::App& app, int64_t& context, int64_t& chunks, std::string& precision) {
  app.add_option("-c,--context", context, "tokens a chunk of the text; the second half of each is scored")
      ->check(CLI::Range(int64_t{4}, int64_t{1} << 24))
      ->capture_default_str();
  app.add_option("--chunks", chunks, "only the first N chunks (default: all)")->check(CLI::Range(1, 1 << 30));
  app.add_option("--precision", precision, "fast: quantised kernels; f32: exact on the dequantised weights")
      ->check(CLI::IsMember({"fast", "f32"}));
}

void add_run_choice(CLI::App& app, std::string& resume, bool& fresh) {
  auto* run = app.add_option("--resume", resume,
                             "this run's folder and no other (default: the newest run, where it is unfinished and its "
                             "model, rows and settings are the same)");
  app.add_flag("--fresh", fresh, "a new run, also where an unfinished one could be gone on with")->excludes(run);
}

// Says once what makes this machine slower than it could be, before commands that compute for long. Who chose a level
// knows it already.
void tell_shortfall(std::string_view command) {
  static constexpr std::string_view kComputing[] = {"make", "assess", "tune", "preferences",
                                                    "eval", "chat",   "run",  "bench", "serve"};
  if (std::find(std::begin(kComputing), std::end(kComputing), command) == std::end(kComputing)) return;
  const std::string_view shortfall = cpu_shortfall(cpu_detected());
  if (!shortfall.empty() && cpu_level() == cpu_detected()) fmt::print(stderr, "note: {}\n", shortfall);
}

int run(int argc, char** argv) {
  CLI::App app{
      "Thimble: a use case goes in, a small language model comes out that is fine-tuned for it, proven on "
      "it, and running.\nNothing leaves this machine unless you ask for it."};
  app.name("thimble");
  app.require_subcommand(1);
  app.set_version_flag("--version", "thimble " THIMBLE_VERSION);
  app.failure_message(CLI::FailureMessage::help);
  int threads = 0;
  std::string cpu;
  app.add_option("--threads", threads, "threads to compute with (default: one a core)")->check(CLI::Range(1, 1024));
  app.add_option("--cpu-level", cpu,
                 "instruction set: plain, avx2, avx512, avx512bf16 (default: $THIMBLE_CPU, or the best there is)");
  app.fallthrough();
  int status = kOk;
  // Options must outlive parsing; callbacks run after it.
  PullOptions pull;
  InfoOptions info;
  RunOptions run;
  ChatOptions chat;
  BenchOptions bench;
  ServeOptions serve;
  TuneOptions tune;
  PreferencesOptions preferences;
  DistillOptions distill;
  EvalOptions eval;
  GrammarOptions grammar;
  AssessOptions assess;
  MakeOptions make;
  MergeOptions merge;
  PerplexityOptions perplexity;
  perplexity.model.context = 512;
  QuantizeOptions quantize;
  KeysOptions keys;

  const auto command = [&](const char* name, const char* help, auto body) {
    CLI::App* sub = app.add_subcommand(name, help);
    sub->final_callback([&, sub, body] {
      const CLI::Option* json = sub->get_option_no_throw("--json");
      if (json == nullptr || json->count() == 0) tell_shortfall(sub->get_name());
      status = body();
    });
    return sub;
  };

  {
    auto* c = command("make", "the whole job: assess, tune, eval, report; ends with GO or NO-GO (exit status 0 or 3)",
                      [&] { return make_command(make); });
    c->add_option("job", make.job, "a use-case folder")->required();
    c->add_option("-m,--model", make.model, "another base model than thimble.toml names");
    add_run_choice(*c, make.resume, make.fresh);
    c->add_flag("--json", make.json, "one JSON object on standard output");
  }
  {
    auto* c = command("assess", "is the job worth it? base model zero-shot and few-shot, and a large endpoint",
                      [&] { return assess_command(assess); });
    c->add_option("job", assess.job, "a use-case folder")->required();
    c->add_option("-m,--model", assess.model, "another base model than thimble.toml names");
    c->add_flag("--json", assess.json, "one JSON object on standard output");
  }
  {
    auto* c = command("tune", "fine-tune the job's base model on train.jsonl",
                      [&] { return tune.sweep ? sweep_command(tune) : tune_command(tune); });
    c->add_option("job", tune.job, "a use-case folder")->required();
    c->add_option("-m,--model", tune.model, "another base model than thimble.toml names");
    c->add_flag("--dry-run", tune.dry_run, "only show what would be trained on, and the memory plan");
    add_run_choice(*c, tune.resume, tune.fresh);
    c->add_flag("--json", tune.json, "a JSON object on a line of standard output for every step, the result last");
    auto* sweep = c->add_flag("--sweep", tune.sweep,
                              "try learning rates and ranks on the dev part instead, and write the best to sweep.toml");
    c->add_option("--minutes", tune.minutes, "that the sweep may take")
        ->check(CLI::Range(0.001, 100000.0))->capture_default_str()->needs(sweep);
  }
  {
    auto* c = command("preferences", "pairs to tune on, made of a tuned model's own wrong answers to train.jsonl",
                      [&] { return preferences_command(preferences); });
    c->add_option("job", preferences.job, "a use-case folder; preferences.jsonl is written into it")->required();
    add_model_options(*c, preferences.model, false);
    c->add_flag("--base", preferences.base, "the base model without an adapter");
    c->add_option("--samples", preferences.samples, "answers to each row")->check(CLI::Range(1, 1000));
    c->add_option("--keep", preferences.keep, "most wrong answers of a row, the most frequent")
        ->check(CLI::Range(1, 1000));
    c->add_option("--temperature", preferences.temperature, "of sampling: higher finds rarer mistakes")
        ->check(CLI::Range(0.01, 10.0));
    c->add_option("--limit", preferences.limit, "only the first N rows")->check(CLI::Range(1, 1 << 30));
    c->add_flag("--force", preferences.force, "replace preferences.jsonl");
  }
  {
    auto* c = command("distill", "save what a teacher thinks of each token of train.jsonl, to learn from without it",
                      [&] { return distill_command(distill); });
    c->add_option("job", distill.job, "a use-case folder with [distill]; distill.jsonl is written into it")->required();
    c->add_option("--top", distill.top, "tokens at each place, the likeliest")
        ->check(CLI::Range(1, kMostTopLogProbs))
        ->capture_default_str();
    c->add_flag("--force", distill.force, "replace distill.jsonl");
  }
  {
    auto* c = command("eval", "prove a model on test.jsonl: exact calls, failures by name",
                      [&] { return eval_command(eval); });
    c->add_option("job", eval.job, "a use-case folder")->required();
    auto* test = c->add_option("--test", eval.test, "another file of rows than test.jsonl");
    c->add_flag("--dev", eval.dev, "the dev part of train.jsonl instead: what settings are chosen by")->excludes(test);
    add_model_options(*c, eval.model, false);
    c->add_flag("--base", eval.base, "the base model without an adapter");
    c->add_flag("--unconstrained", eval.unconstrained, "let the model write what it likes");
    c->add_option("--shots", eval.shots, "examples from train.jsonl in the prompt")->check(CLI::Range(0, 64));
    c->add_option("--tools-in-prompt", eval.tools_in_prompt, "yes or no, instead of what the job says")
        ->check(CLI::IsMember({"yes", "no"}));
    c->add_option("--call-threshold", eval.call_threshold,
                  "call where beginning a call is at least this likely (0: always, above 1: never), instead of the "
                  "adapter's own threshold")
        ->check(CLI::NonNegativeNumber);
    c->add_option("--limit", eval.limit, "only the first N rows")->check(CLI::Range(1, 1 << 30));
    c->add_option("--batch", eval.batch, "rows answered side by side (default: what the job says)")
        ->check(CLI::Range(1, 256));
    auto* predictions =
        c->add_option("--predictions", eval.predictions, "write every row's answer to this JSONL file");
    c->add_option("--prompts", eval.prompts,
                  "only write what the model would be asked, text and tokens of every row, to this JSONL file")
        ->excludes(predictions);
    c->add_flag("--json", eval.json, "one JSON object on standard output");
  }
  {
    auto* c = command("grammar", "the grammar of a job's answers, to hold other engines to it",
                      [&] { return grammar_command(grammar); });
    c->add_option("job", grammar.job, "a use-case folder")->required();
    c->add_option("--form", grammar.form, "gbnf: llama.cpp; ebnf: xgrammar, which vLLM and SGLang use")
        ->capture_default_str()
        ->check(CLI::IsMember({"gbnf", "ebnf"}));
  }
  {
    CLI::App* c = command("serve", "Serve models over OpenAI's API, on this machine alone unless told otherwise",
                          [&] { return serve_command(serve); });
    c->add_option("models", serve.models, "use-case folders, model files or folders, pulled names")->required();
    c->add_option("-a,--adapter", serve.adapters, "NAME=FOLDER: an adapter beside the base; may be given several times")
        ->allow_extra_args(false);
    c->add_option("--host", serve.host, "address to listen on, or a path for a Unix socket")->capture_default_str();
    c->add_option("-p,--port", serve.port, "0: any free one")->capture_default_str();
    c->add_option("--tls-cert", serve.certificate, "PEM file with the certificate and its chain");
    c->add_option("--tls-key", serve.key, "PEM file with its key");
    auto* keys_option = c->add_option("--keys", serve.keys,
                                      "file of API keys, one of which every request must show (default: "
                                      "~/.config/thimble/keys.jsonl where `thimble keys` made any)");
    c->add_flag("--no-keys", serve.no_keys, "ask for none, even at an address that other machines reach")
        ->excludes(keys_option);
    c->add_option("--allow-host", serve.allowed_hosts,
                  "a name by which the server may be asked for, besides localhost and its address")
        ->allow_extra_args(false);
    c->add_option("--allow-origin", serve.allowed_origins,
                  "of web pages that may use the server, such as https://chat.example.org, or *")
        ->allow_extra_args(false);
    c->add_flag("--offline", serve.offline, "let the process connect to nobody from now on, whatever it is made to do");
    c->add_option("-c,--context", serve.context, "tokens of key-value cache of each base model")
        ->check(CLI::Range(int64_t{64}, int64_t{1} << 24))
        ->capture_default_str();
    c->add_option("--parallel", serve.parallel, "answers side by side")->check(CLI::Range(1, 1024))->capture_default_str();
    c->add_option("--queue", serve.queue, "answers that are made or wait; more are refused with 429")
        ->check(CLI::Range(1, 1 << 20))
        ->capture_default_str();
    c->add_option("-n,--max-tokens", serve.max_tokens, "of an answer, where the request does not say")
        ->check(CLI::Range(1, 1 << 20))
        ->capture_default_str();
    c->add_flag("-q,--quiet", serve.quiet, "no line a request on standard error");
    auto* contents_option =
        c->add_option("--log-contents", serve.log_contents,
                      "store what is asked and answered in this SQLite file, in plain text (default: nowhere)");
    c->add_option("--keep-contents", serve.keep_contents, "days, after which it is deleted there (default: never)")
        ->needs(contents_option)
        ->check(CLI::Range(1, 36500));
    c->add_option("--time-limit", serve.time_limit, "seconds from a request to its answer's end (0: none); 408 beyond")
        ->check(CLI::Range(0.0, 1e9))
        ->capture_default_str();
    c->add_option("--drain-wait", serve.drain_wait,
                  "seconds after SIGTERM in which, while answers run, new requests are taken and /ready says 503")
        ->check(CLI::Range(0.0, 30.0))
        ->capture_default_str();
    c->add_option("--ping", serve.ping, "seconds of silence after which a stream shows that it lives (0: never)")
        ->check(CLI::Range(0.0, 1e6))
        ->capture_default_str();
    c->add_option("--memory", serve.memory_mb, "MB that models and caches may take (0: what is free)");
    c->add_option("--precision", serve.precision, "fast: quantised kernels; f32: exact on the dequantised weights")
        ->check(CLI::IsMember({"fast", "f32"}));
    c->add_option("--kv-type", serve.kv_type, "of keys and values (default: f16, with --precision f32 f32); q8: 8 bits")
        ->check(CLI::IsMember({"f32", "f16", "bf16", "q8"}));
    c->add_flag("!--no-speculation", serve.speculate, "compute answers token by token: the same answers, slower");
  }
  {
    auto* c = command("chat", "talk to a model or to a tuned job", [&] { return chat_command(chat); });
    c->add_option("model", chat.model.model, "a use-case folder, a model file or a pulled name")->required();
    add_engine_options(*c, chat.model);
    c->add_option("--system", chat.system, "system message");
    c->add_flag("--unconstrained", chat.unconstrained, "don't hold calls to the tools' schemas");
    add_generate_options(*c, chat.generate);
  }
  {
    auto* c = command("run", "continue a text", [&] { return run_command(run); });
    add_model_options(*c, run.model, true);
    c->add_option("-p,--prompt", run.prompt, "the text; - reads standard input")->required();
    add_generate_options(*c, run.generate);
    c->add_flag("--ignore-end", run.ignore_end, "go on after end-of-text tokens");
    auto* json = c->add_flag("--json", run.json, "one JSON object on standard output, when the answer is whole");
    c->add_option("--logprobs", run.log_probs, "with --json: log-probabilities of each token and of the N likeliest")
        ->check(CLI::Range(0, kMostTopLogProbs))
        ->needs(json);
    c->add_option("--logits", run.logits, "write f32 logits of every prompt position to this safetensors file instead")
        ->excludes(json);
  }
  {
    auto* c = command("pull", "fetch a model: a known name, a file, an https address, or hf:owner/repo",
                      [&] { return pull_command(pull); });
    c->add_option("source", pull.source, "smollm2-135m-instruct, or any of the above")->required();
  }
  {
    auto* c =
        command("info", "what a model file holds, or what this machine offers", [&] { return info_command(info); });
    c->add_option("model", info.model, "a model file, folder or pulled name");
    c->add_flag("--cpu", info.cpu, "what this machine has, and which kernels are used");
    c->add_flag("--json", info.json, "one JSON object on standard output");
  }
  {
    auto* c = command("bench", "measure tokens per second, start-up and memory, beside this machine's limits",
                      [&] { return bench_command(bench); });
    add_model_options(*c, bench.model, true);
    const auto lengths = [c](const char* name, std::vector<int>& to, const char* help) {
      c->add_option(name, to, help)->delimiter(',')->capture_default_str()->check(CLI::Range(0, 1 << 20));
    };
    lengths("--prompts", bench.prompts, "prompt lengths to read (0: none)");
    lengths("--generate", bench.generate, "lengths to decode after a short prompt (0: none)");
    lengths("--depths", bench.depths, "decode also after so many tokens");
    lengths("--batch", bench.batch, "decode also so many sequences side by side, counted together");
    c->add_option("--repeat", bench.repeat, "rounds of all tests; medians are shown")->check(CLI::Range(1, 100));
    c->add_flag("!--no-start-up", bench.start_up, "don't start new processes to measure their first token");
    auto* json = c->add_flag("--json", bench.json, "one JSON object on standard output");
    c->add_flag("--markdown", bench.markdown, "a table for a page")->excludes(json);
  }
  {
    auto* c = command("merge", "put adapters into their base model, or several into one; a .gguf file or a folder",
                      [&] { return merge_command(merge); });
    c->add_option("adapter", merge.adapters,
                  "PEFT adapter folders, GGUF LoRA files, or job folders (their newest run)")
        ->required();
    c->add_option("-m,--model", merge.model, "the base model (default: the one that the job's manifest names)");
    c->add_option("-o,--out", merge.out, "what to write: FILE.gguf or a folder")->required();
    auto* type = c->add_option("--type", merge.type, "element type: f32, f16, bf16, and q8_0 for GGUF")
                     ->check(CLI::IsMember({"f32", "f16", "bf16", "q8_0"}));
    c->add_option("--weights", merge.weights, "of each adapter, with commas between them (default: 1)")->delimiter(',');
    c->add_option("--mix", merge.mix,
                  "several adapters: concatenate: the exact weighted sum, ranks add up; linear: matrices added as "
                  "PEFT's add_weighted_adapter, the rank stays")
        ->check(CLI::IsMember({"concatenate", "linear"}))->capture_default_str();
    c->add_flag("--adapter-only", merge.adapter_only,
                "write one adapter instead of a model: a PEFT folder, or FILE.gguf for llama.cpp's --lora")
        ->excludes(type);
  }
  {
    auto* c = command("perplexity", "how well a model predicts a text, and how far it is from another model",
                      [&] { return perplexity_command(perplexity); });
    c->add_option("text", perplexity.text, "a text file")->required();
    c->add_option("-m,--model", perplexity.model.model, "a model: .gguf file, safetensors folder, or a pulled name")
        ->required();
    c->add_option("-a,--adapter", perplexity.model.adapter, "a PEFT adapter folder");
    c->add_option("--reference", perplexity.reference,
                  "another model, the original: KL divergence from it, same likeliest tokens, ratio of perplexities");
    c->add_option("--reference-precision", perplexity.reference_precision, "fast or f32 (default: as --precision)")
        ->check(CLI::IsMember({"fast", "f32"}));
    add_chunk_options(*c, perplexity.model.context, perplexity.chunks, perplexity.model.precision);
    c->add_flag("--json", perplexity.json, "one JSON object on standard output");
  }
  {
    auto* c = command("quantize", "write a model anew as GGUF of another element type",
                      [&] { return quantize_command(quantize); });
    c->add_option("model", quantize.model, "a model: .gguf file, safetensors folder, or a pulled name")->required();
    c->add_option("out", quantize.out, "what to write: FILE.gguf")->required();
    const auto types = CLI::IsMember({"f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "q5_0", "q5_1", "q4_k", "q5_k",
                                      "q6_k"}, CLI::ignore_case);
    c->add_option("--type", quantize.type, "element type of the matrices; norms and biases stay f32")
        ->required()->check(types);
    c->add_option("--head", quantize.head,
                  "element type of the output head, or of the embedding table where it is the head too (default: "
                  "--type, but at least q6_k)")
        ->check(types);
    c->add_option("--check", quantize.check,
                  "then compare the new file with the original on this text: perplexities and KL divergence");
    add_chunk_options(*c, quantize.context, quantize.chunks, quantize.precision);
    c->add_flag("--force", quantize.force, "replace a file that is there");
    c->add_flag("--json", quantize.json, "one JSON object on standard output");
  }
  {
    auto* c = app.add_subcommand("keys", "the API keys of `thimble serve`");
    c->require_subcommand(1);
    const auto key_command = [&](const char* name, const char* help, int (*body)(const KeysOptions&)) {
      auto* sub = c->add_subcommand(name, help);
      sub->add_option("--file", keys.file, "where keys are kept (default: ~/.config/thimble/keys.jsonl)");
      sub->final_callback([&, body] { status = body(keys); });
      return sub;
    };
    const auto limit = CLI::Range(1, 1'000'000'000);
    auto* add = key_command("add", "make a key: it is shown once, and kept as its digest only", keys_add_command);
    add->add_option("name", keys.name, "whose key it is: letters, digits and . _ -")->required();
    add->add_option("--models", keys.models, "that it may use, with commas between them (default: all)")
        ->delimiter(',');
    add->add_option("--requests-per-minute", keys.requests_per_minute, "that it may send (default: any number)")
        ->check(limit);
    add->add_option("--tokens-per-minute", keys.tokens_per_minute,
                    "that it may use, of prompts and answers together (default: any number)")
        ->check(limit);
    auto* list = key_command("list", "names, models and limits", keys_list_command);
    list->add_flag("--json", keys.json, "a JSON object on a line for each");
    auto* remove = key_command("remove", "a running server lets it in no more after a second", keys_remove_command);
    remove->add_option("name", keys.name, "whose key it is")->required();
  }
  // Global options are read before the command runs.
  app.parse_complete_callback([&] {
    if (threads > 0) set_threads(threads);
    if (!cpu.empty()) force_cpu(cpu_level_named(cpu, "--cpu-level"));
    cpu_level();  // refuses a wrong THIMBLE_CPU before anything is loaded
  });

  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    const int code = app.exit(e);
    return code == 0 ? kOk : kUserError;
  }
  return status;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return run(argc, argv);
  } catch (const thimble::Error& e) {
    fmt::print(stderr, "{} {}\n", thimble::styled(stderr, thimble::Style::kRed, "error:"), e.what());
    return thimble::kUserError;
  } catch (const std::bad_alloc&) {
    fmt::print(stderr, "error: out of memory; close other programs or take a smaller model\n");
    return thimble::kUserError;
  } catch (const std::exception& e) {
    fmt::print(stderr, "internal error: {}\n", e.what());
    return thimble::kFailed;
  }
}
