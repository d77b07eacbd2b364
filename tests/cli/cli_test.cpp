// The program as a script uses it: exit statuses, what goes to standard output, what a new user's mistakes say.

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "program.h"

namespace thimble {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

using test::Result;
using test::thimble;

class Cli : public test::JobTest {};

TEST_F(Cli, RunPrintsTheContinuationAlone) {
  THIMBLE_REQUIRE_STORIES();
  const Result r = thimble("run --model '" + test::stories_model().string() + "' -p 'Once upon a time' --greedy -n 16");
  EXPECT_EQ(r.status, 0) << r.err;
  EXPECT_EQ(r.out.rfind(", there was a", 0), 0u) << r.out;
}

TEST_F(Cli, RunPrintsOneObjectWithLogProbabilities) {
  THIMBLE_REQUIRE_STORIES();
  const std::string run = "run --model '" + test::stories_model().string() + "' -p 'Once upon a time' -n 6 ";
  const Result plain = thimble(run);
  const Result r = thimble(run + "--json --logprobs 3");
  ASSERT_EQ(r.status, 0) << r.err;
  const json out = json::parse(r.out);
  EXPECT_EQ(out["text"], plain.out);
  EXPECT_EQ(out["finish_reason"], "length");
  EXPECT_EQ(out["tokens"].size(), 6u);
  ASSERT_EQ(out["logprobs"].size(), 6u);
  std::string text;
  for (size_t i = 0; i < 6; ++i) {
    const json& token = out["logprobs"][i];
    EXPECT_EQ(token["id"], out["tokens"][i]);
    EXPECT_LE(token["logprob"], 0);
    ASSERT_EQ(token["top_logprobs"].size(), 3u);
    EXPECT_EQ(token["top_logprobs"][0]["id"], token["id"]) << "greedy takes the likeliest";
    for (const int byte : token["bytes"]) text += static_cast<char>(byte);
  }
  EXPECT_EQ(text, plain.out);
  EXPECT_FALSE(json::parse(thimble(run + "--json").out).contains("logprobs"));
  EXPECT_EQ(thimble(run + "--logprobs 3").status, 2) << "without --json there is no place for them";
  EXPECT_EQ(thimble(run + "--json --logprobs 21").status, 2);
}

TEST_F(Cli, SamplingOptionsReachTheSampler) {
  THIMBLE_REQUIRE_STORIES();
  const std::string run = "run --model '" + test::stories_model().string() + "' -p 'Once upon a time' -n 100 ";
  const std::string greedy = thimble(run).out;
  EXPECT_EQ(thimble(run + "--greedy").out, greedy);
  const std::string sampled = thimble(run + "-t 1 --seed 3").out;
  EXPECT_EQ(thimble(run + "-t 1 --seed 3").out, sampled);
  for (const char* changes : {"--repeat-penalty 2 --repeat-window 0", "--presence-penalty 2", "--frequency-penalty 2",
                              "--dry-multiplier 50 --dry-allowed-length 1 --dry-base 2 --dry-window 30",
                              "--dry-multiplier 50 --dry-allowed-length 1 --dry-breaker none",
                              "--logit-bias ' there=-100'", "--logit-bias 300=+100"}) {
    const Result r = thimble(run + changes);
    EXPECT_EQ(r.status, 0) << r.err;
    EXPECT_NE(r.out, greedy) << changes;
  }
  for (const char* changes : {"--top-k 1", "--top-p 0.01", "--min-p 1"})
    EXPECT_EQ(thimble(run + "-t 1 --seed 3 " + changes).out, greedy) << changes << " leaves the most likely token";
  EXPECT_NE(thimble(run + "-t 1 --seed 3 --typical 0.3").out, sampled);
  EXPECT_EQ(thimble(run + "--min-tokens 101").status, 2);
}

TEST_F(Cli, ImpossibleSamplingOptionsAreOneSentence) {
  THIMBLE_REQUIRE_STORIES();
  const std::vector<std::pair<const char*, const char*>> mistakes = {
      {"--temperature -1", "temperature -1: must be between 0 (greedy) and 100"},
      {"--top-k -1", "top-k -1: must be 0 (off) or more"},
      {"--top-p 0", "top-p 0: must be above 0"},
      {"--min-p 2", "min-p 2: must be between 0 (off) and 1"},
      {"--typical 1.5", "typical 1.5: must be above 0"},
      {"--repeat-penalty 0", "repeat penalty 0: must be above 0"},
      {"--repeat-window -1", "repeat window -1: must be 0 (all tokens) or more"},
      {"--presence-penalty 3", "presence penalty 3: must be between -2 and 2"},
      {"--frequency-penalty -3", "frequency penalty -3: must be between -2 and 2"},
      {"--dry-multiplier -1", "DRY multiplier -1: must be between 0 (off) and 100"},
      {"--dry-base 0.5", "DRY base 0.5: must be between 1 and 100"},
      {"--dry-allowed-length 0", "DRY allowed length 0: must be 1 or more"},
      {"--dry-window -1", "DRY window -1: must be 0 (all tokens) or more"},
      {"--dry-breaker ''", "DRY breaker ''"},
      {"--min-tokens 9 -n 8", "--min-tokens 9: must be between 0 and --max-tokens, which is 8"},
      {"--logit-bias 5", "--logit-bias 5: give TOKEN=BIAS"},
      {"--logit-bias 5=x", "--logit-bias 5=x: give TOKEN=BIAS"},
      {"--logit-bias 5=101", "between -100 and 100"},
      {"--logit-bias 99999=1", "token 99999: the model's tokens are 0 to 511"},
      {"--logit-bias 5=1 --logit-bias 5=2", "token 5 is given twice"},
      {"--logit-bias 'Once upon a time=1'", "tokens for this model; give the text of one token, or its id"},
  };
  for (const char* command : {"run -p x -m ", "chat "}) {
    for (const auto& [options, said] : mistakes) {
      const Result r = thimble(command + ("'" + test::stories_model().string() + "' ") + options);
      EXPECT_EQ(r.status, 2) << options << r.out;
      EXPECT_NE(r.err.find(said), std::string::npos) << options << "\n" << r.err;
      EXPECT_EQ(std::count(r.err.begin(), r.err.end(), '\n'), 1) << r.err;
    }
  }
}

TEST_F(Cli, SpeculationIsAnOptionOfEveryCommandThatAnswersAndChangesNoAnswer) {
  THIMBLE_REQUIRE_STORIES();
  const std::string model = "'" + test::stories_model().string() + "'";
  for (const char* command : {"run", "chat", "eval", "bench"}) {
    const Result help = thimble(std::string(command) + " --help");
    for (const char* option : {"--draft", "--no-speculation", "--kv-type", "--context", "--precision"})
      EXPECT_NE(help.out.find(option), std::string::npos) << command << " " << option;
  }
  const std::string ask = "run -m " + model + " -p 'Lily had a red ball. Tom had a red ball. Lily' --greedy -n 40 ";
  const Result plain = thimble(ask);
  ASSERT_EQ(plain.status, 0) << plain.err;
  EXPECT_FALSE(plain.out.empty());
  EXPECT_EQ(thimble(ask + "--no-speculation").out, plain.out);
  EXPECT_EQ(thimble(ask + "--draft " + model).out, plain.out);
}

TEST_F(Cli, TheMainJobEndsWithAVerdictAndWhatAScriptNeeds) {
  THIMBLE_REQUIRE_STORIES();
  write_job("", "[bars]\nmissed_calls = 1.0\n");
  const Result made = thimble("make --json " + job());
  ASSERT_EQ(made.status, 0) << made.err << made.out;
  const json verdict = json::parse(made.out);
  EXPECT_EQ(verdict["go"], true);
  EXPECT_EQ(verdict["rows"], 3);
  const fs::path adapter = verdict["adapter"].get<std::string>();
  for (const char* name : {"adapter_config.json", "adapter_model.safetensors", "thimble_job.json"})
    EXPECT_TRUE(fs::exists(adapter / name)) << name;
  std::stringstream report;
  report << std::ifstream(verdict["report"].get<std::string>()).rdbuf();
  EXPECT_NE(report.str().find("Before and after"), std::string::npos);
  EXPECT_EQ(report.str().find("<script"), std::string::npos);
  EXPECT_EQ(report.str().find("http://"), std::string::npos);

  const Result eval = thimble("eval --json " + job());
  ASSERT_EQ(eval.status, 0) << eval.err;
  const json score = json::parse(eval.out);
  for (const char* key : {"rows", "exact", "name_accuracy", "argument_f1", "false_calls", "missed_calls", "failures",
                          "seconds", "peak_memory_bytes"})
    EXPECT_TRUE(score.contains(key)) << key;
  EXPECT_EQ(score["exact"], verdict["exact"]) << "the same model on the same rows";

  const Result dev = thimble("eval --dev --json " + job());
  ASSERT_EQ(dev.status, 0) << dev.err;
  EXPECT_EQ(json::parse(dev.out)["rows"], 2);  // a tenth of 24
  EXPECT_EQ(thimble("eval --dev --test x.jsonl " + job()).status, 2);

  const fs::path merged = folder_ / "merged.gguf";
  EXPECT_EQ(thimble("merge " + job() + " -o '" + merged.string() + "'").status, 0);
  EXPECT_EQ(thimble("info '" + merged.string() + "'").status, 0);
}

TEST_F(Cli, OtherEnginesGetPromptsAndGrammar) {
  THIMBLE_REQUIRE_STORIES();
  write_job();
  const Result gbnf = thimble("grammar " + job()), ebnf = thimble("grammar --form ebnf " + job());
  ASSERT_EQ(gbnf.status, 0) << gbnf.err;
  EXPECT_TRUE(gbnf.out.starts_with("root ::= "));
  EXPECT_EQ(gbnf.out.find("TagDispatch"), std::string::npos);
  std::istringstream rules(gbnf.out);
  for (std::string rule; std::getline(rules, rule);)
    EXPECT_EQ(rule.substr(0, rule.find(" ::= ")).find('_'), std::string::npos) << "llama.cpp reads no such name";
  EXPECT_NE(ebnf.out.find("TagDispatch"), std::string::npos);

  const fs::path prompts = folder_ / "prompts.jsonl";
  const Result eval = thimble("eval " + job() + " --base --limit 2 --prompts '" + prompts.string() + "'");
  ASSERT_EQ(eval.status, 0) << eval.err;
  EXPECT_EQ(eval.out, "");
  std::ifstream file(prompts);
  std::string line;
  ASSERT_TRUE(std::getline(file, line));
  const json first = json::parse(line);
  EXPECT_EQ(first.at("row"), 1);
  EXPECT_NE(first.at("prompt").get<std::string>().find("lamp on 20"), std::string::npos);
  EXPECT_GT(first.at("tokens").size(), 5u);
}

TEST_F(Cli, AMissedBarEndsWithNoGo) {
  THIMBLE_REQUIRE_STORIES();
  write_job("", "[bars]\nexact = 1.0\nmissed_calls = 0.0\nfalse_calls = 0.0\nargument_f1 = 1.0\n");
  // The third test row wants no call, which no training row shows.
  EXPECT_EQ(thimble("make " + job()).status, 3);
}

TEST_F(Cli, TuneShowsWhatIsTrainedBeforeItStarts) {
  THIMBLE_REQUIRE_STORIES();
  write_job();
  const Result r = thimble("tune --dry-run " + job());
  EXPECT_EQ(r.status, 0) << r.err;
  for (const char* part : {"[[", "]]", "memory plan", "rows to train on", "learned"})
    EXPECT_NE(r.out.find(part), std::string::npos) << part << "\n" << r.out;
  EXPECT_FALSE(fs::exists(folder_ / "runs"));
}

TEST_F(Cli, PreferencesAreMadeOfTheModelsOwnMistakesAndTrainedOn) {
  THIMBLE_REQUIRE_STORIES();
  write_job();
  ASSERT_EQ(thimble("tune " + job()).status, 0);
  // A hot model makes mistakes; the dev part and the test set are not asked.
  const Result made = thimble("preferences --samples 8 --temperature 3 " + job());
  ASSERT_EQ(made.status, 0) << made.err;
  EXPECT_NE(made.out.find("22 rows of train.jsonl asked 8 times"), std::string::npos) << made.out;
  std::ifstream file(folder_ / "preferences.jsonl");
  size_t pairs = 0;
  for (std::string line; std::getline(file, line); ++pairs) {
    const json row = json::parse(line);
    EXPECT_TRUE(row.at("query").get<std::string>().starts_with("lamp"));
    EXPECT_TRUE(row.at("rejected").contains("calls") || row.at("rejected").contains("answer")) << line;
    EXPECT_NE(row.at("rejected").value("calls", json()), row.at("calls")) << line;
  }
  ASSERT_GT(pairs, 4u) << "too few mistakes to go on with";
  EXPECT_EQ(thimble("preferences " + job()).status, 2) << "what is there is not replaced";

  write_job("", "[preference]\nloss = \"dpo\"\nfile = \"preferences.jsonl\"\n");
  const Result plan = thimble("tune --dry-run " + job());
  ASSERT_EQ(plan.status, 0) << plan.err;
  for (const char* part : {"objective: DPO, beta 0.1", "pairs of a right and a wrong one", "prefer this one to"})
    EXPECT_NE(plan.out.find(part), std::string::npos) << part << "\n" << plan.out;
  const Result tuned = thimble("tune " + job());
  ASSERT_EQ(tuned.status, 0) << tuned.err;
  EXPECT_NE(tuned.out.find("told apart"), std::string::npos) << tuned.out;
  EXPECT_NE(tuned.out.find("dev loss 0.6931"), std::string::npos) << "the model is its own reference\n" << tuned.out;

  // Verdicts that nothing says what to do with, and rows that lack them.
  write_job("", "[preference]\nloss = \"dpo\"\n");
  EXPECT_NE(thimble("tune " + job()).err.find("row 1: it has no rejected answer"), std::string::npos);
  write_job("", "[preference]\nloss = \"kto\"\n");
  EXPECT_NE(thimble("tune " + job()).err.find("row 1: it has neither a label"), std::string::npos);
  write_job();
  write("train.jsonl", R"({"query":"lamp","calls":[],"answer":"a","rejected":{"answer":"b"}})"
                       "\n");
  EXPECT_NE(thimble("tune " + job()).err.find("has no [preference]"), std::string::npos);
}

TEST_F(Cli, TuneExplainsItselfStepByStepToMachines) {
  THIMBLE_REQUIRE_STORIES();
  write_job("", "", "rank = 8\nlearning_rate = 0.02\nepochs = 12\nbatch_rows = 4\ndev_share = 0.1\nevaluations = 3\n");
  const Result r = thimble("tune --json " + job());
  ASSERT_EQ(r.status, 0) << r.err;
  std::istringstream lines(r.out);
  std::string text;
  int64_t steps = 0, evaluations = 0, best_step = -1;
  double best = -1;
  json last;
  while (std::getline(lines, text)) {
    last = json::parse(text);
    if (last["event"] == "finished") break;
    EXPECT_EQ(last["event"], last.contains("dev_loss") ? "evaluation" : "step");
    EXPECT_EQ(last["step"], steps++);
    if (last["step"] == 0) continue;
    for (const char* key : {"loss", "smoothed_loss", "learning_rate", "gradient_norm", "tokens_per_second",
                            "peak_share"})
      EXPECT_GT(last[key], 0) << key;
    EXPECT_LT(last["peak_share"], 1);
    EXPECT_GE(last["seconds_left"], 0);
    if (!last.contains("dev_loss")) continue;
    ++evaluations;
    if (last["metric"] > best) best = last["metric"], best_step = last["step"];
  }
  EXPECT_EQ(last["event"], "finished");
  EXPECT_EQ(steps, 1 + last["planned_steps"].get<int64_t>());
  EXPECT_EQ(evaluations, 3);
  EXPECT_EQ(last["metric"], best);
  EXPECT_GE(last["best_step"], best_step) << "the first that good, or an equal one with a lower loss";
  EXPECT_FALSE(std::getline(lines, text)) << "the result is last";
  const json history = json::parse(test::text_of(run() / "history.json"));
  EXPECT_EQ(history["chosen_by"], "exact answers on up to 100 dev rows");
  EXPECT_EQ(history["history"].size(), static_cast<size_t>(steps));
  // What was measured is what eval says of that adapter.
  const json eval = json::parse(thimble("eval --dev --json --call-threshold 0 " + job()).out);
  EXPECT_EQ(eval["exact"], best);

  write_job("", "",
            "rank = 8\nlearning_rate = 1e-7\nepochs = 12\nbatch_rows = 4\ndev_share = 0.1\nevaluations = 30\n"
            "patience = 2\n");
  std::istringstream impatient(thimble("tune --json --fresh " + job()).out);
  while (std::getline(impatient, text)) last = json::parse(text);
  EXPECT_EQ(last["stopped_early"], true) << last;
  EXPECT_LT(last["steps"], last["planned_steps"]);
}

TEST_F(Cli, AdaptersGoOutAsOneAndAsGgufAndAnswerTheSame) {
  THIMBLE_REQUIRE_STORIES();
  write_job("", "", "rank = 4\nlearning_rate = 0.02\nepochs = 4\nbatch_rows = 4\ndev_share = 0.1\nevaluations = 1\n");
  ASSERT_EQ(thimble("tune " + job()).status, 0);
  const std::string model = " -m '" + test::stories_model().string() + "'";
  const auto file = [&](const char* name) { return "'" + (folder_ / name).string() + "'"; };
  const auto answer = [&](const std::string& adapter) {
    const Result r = thimble("run" + model + " -p 'Once upon a time' -n 40 --greedy --precision f32 -a " + adapter);
    EXPECT_EQ(r.status, 0) << r.err;
    return r.out;
  };
  const std::string own = answer("'" + (run() / "adapter").string() + "'");
  ASSERT_EQ(thimble("merge " + job() + " --adapter-only -o " + file("lora.gguf")).status, 0);
  EXPECT_EQ(answer(file("lora.gguf")), own);
  // Half of it and half of it is it, whichever form each comes in.
  const Result mixed = thimble("merge " + job() + " " + file("lora.gguf") + " --weights 0.5,0.5 --adapter-only -o " +
                               file("both"));
  ASSERT_EQ(mixed.status, 0) << mixed.err;
  EXPECT_EQ(answer(file("both")), own);
  EXPECT_TRUE(fs::exists(folder_ / "both/thimble_job.json"));
  EXPECT_EQ(thimble("merge " + job() + " --weights 0.5,0.5 -o " + file("x.gguf")).status, 2);
  EXPECT_EQ(thimble("merge " + job() + " --adapter-only --type f16 -o " + file("x.gguf")).status, 2);
  const Result merged = thimble("merge " + job() + " " + file("lora.gguf") + " --weights 0.5,0.5 --type f32 -o " +
                                file("merged.gguf"));
  ASSERT_EQ(merged.status, 0) << merged.err;
  const Result alone =
      thimble("run -m " + file("merged.gguf") + " -p 'Once upon a time' -n 40 --greedy --precision f32");
  EXPECT_EQ(alone.out, own) << alone.err;
}

TEST_F(Cli, ASweepWritesTheWinnersSettingsBesideTheJobsAndChangesNothing) {
  THIMBLE_REQUIRE_STORIES();
  write_job("", "", "rank = 4\nlearning_rate = 0.001\nepochs = 12\nbatch_rows = 4\ndev_share = 0.1\n");
  const std::string before = test::text_of(folder_ / "thimble.toml");
  const Result r = thimble("--threads 1 tune --sweep --minutes 5 --json " + job());
  ASSERT_EQ(r.status, 0) << r.err;
  const json out = json::parse(r.out);
  EXPECT_EQ(out["trials"].size(), 15u);
  EXPECT_EQ(out["best"], out["trials"][0]);
  EXPECT_EQ(test::text_of(folder_ / "thimble.toml"), before);
  EXPECT_FALSE(fs::exists(folder_ / "runs"));
  const std::string settings = test::text_of(folder_ / "sweep.toml");
  EXPECT_NE(settings.find("[train]\nlearning_rate = "), std::string::npos) << settings;
  const Result brief = thimble("tune --sweep --minutes 0.001 " + job());
  EXPECT_EQ(brief.status, 2);
  EXPECT_NE(brief.err.find("give --minutes"), std::string::npos) << brief.err;
  EXPECT_EQ(thimble("tune --minutes 5 " + job()).status, 2);
}

TEST_F(Cli, RowsOfAnotherJobAreMixedInAndSaid) {
  THIMBLE_REQUIRE_STORIES();
  const fs::path whole = folder_;
  folder_ = whole / "other";
  fs::create_directories(folder_);
  write_job();
  folder_ = whole;
  write_job("", "[[mix]]\njob = \"other\"\nweight = 0.5\n");
  const Result r = thimble("tune --dry-run " + job());
  ASSERT_EQ(r.status, 0) << r.err;
  EXPECT_NE(r.out.find("33 rows to train on"), std::string::npos) << r.out;
  EXPECT_NE(r.out.find("of them 11 of the job lamp"), std::string::npos) << r.out;
  write_job("", "[[mix]]\njob = \"other\"\nweight = 5\n");
  EXPECT_NE(thimble("tune --dry-run " + job()).out.find("22 of 110 rows"), std::string::npos);
  // What this job tests may not be learned from the other one either.
  write("other/train.jsonl", R"({"query":"Lamp on 20!","calls":[{"name":"lamp","arguments":{"on":true}}]})"
                             "\n");
  EXPECT_NE(thimble("tune --dry-run " + job()).err.find("also trained on"), std::string::npos);
  const Result none = thimble("tune " + job());
  EXPECT_EQ(none.status, 2);
}

TEST_F(Cli, AStudentLearnsFromATeacherItsFileOrItsAnswers) {
  THIMBLE_REQUIRE_STORIES();
  const std::string model = test::stories_model().string();
  write_job();
  ASSERT_EQ(thimble("tune " + job()).status, 0);
  fs::path run;
  for (const auto& entry : fs::directory_iterator(folder_ / "runs")) run = entry.path();
  const std::string teacher =
      "teacher = \"" + model + "\"\nadapter = \"runs/" + run.filename().string() + "/adapter\"\n";

  write_job("", "[distill]\n" + teacher);
  const Result plan = thimble("tune --dry-run " + job());
  ASSERT_EQ(plan.status, 0) << plan.err;
  for (const char* part : {"objective: forward KL divergence from", "of it the teacher"})
    EXPECT_NE(plan.out.find(part), std::string::npos) << part << "\n" << plan.out;
  const Result live = thimble("tune " + job());
  ASSERT_EQ(live.status, 0) << live.err;

  ASSERT_EQ(thimble("distill --top 5 " + job()).status, 0);
  EXPECT_EQ(thimble("distill " + job()).status, 2) << "what is there is not replaced";
  write_job("", "[distill]\nfrom = \"distill.jsonl\"\n");
  const Result saved = thimble("tune " + job());
  ASSERT_EQ(saved.status, 0) << saved.err;
  EXPECT_NE(saved.out.find("divergence from distill.jsonl"), std::string::npos) << saved.out;

  write_job("", "[distill]\nkind = \"sequence\"\n" + teacher);
  // So small a teacher never comes to an end of its answers: nothing is learned from it, and that is said.
  const Result answers = thimble("tune --dry-run " + job());
  EXPECT_NE(answers.out.find("the teacher answered 22 rows"), std::string::npos) << answers.out;
  EXPECT_NE(answers.out.find(": 0 are learned"), std::string::npos) << answers.out;
  EXPECT_EQ(answers.status, 2);
  EXPECT_NE(answers.err.find("no row is left to train on"), std::string::npos) << answers.err;

  write_job("", "[distill]\nkind = \"reverse_kl\"\n" + teacher);
  write("thimble.toml", [&] {
    std::stringstream toml;
    toml << std::ifstream(folder_ / "thimble.toml").rdbuf();
    return std::string(toml.str()).replace(toml.str().find("system = \"\""), 11, "system = \"x\"");
  }());
  EXPECT_NE(thimble("tune " + job()).err.find("another system message"), std::string::npos);
}

struct Mistake {
  const char* file;
  const char* text;
  std::vector<const char*> said;
};

TEST_F(Cli, MistakesAreOneSentenceWithFilePlaceAndMend) {
  THIMBLE_REQUIRE_STORIES();
  const std::vector<Mistake> mistakes = {
      {"thimble.toml", "nam = \"x\"\n", {"thimble.toml:1", "nam", "name"}},
      {"thimble.toml", "[train]\nlearning_rat = 1\n", {"thimble.toml:2", "learning_rate"}},
      {"thimble.toml", "[train]\nepochs = \"three\"\n", {"thimble.toml:2", "epochs"}},
      {"tools.json", "[{\"name\": 3}]", {"tools.json"}},
      {"tools.json", "[", {"tools.json"}},
      {"train.jsonl", "{\"query\": 3, \"calls\": []}\n", {"train.jsonl", "row 1"}},
      {"train.jsonl", "{\"query\": \"x\", \"calls\": []}\n", {"train.jsonl", "row 1", "answer"}},
      {"train.jsonl", "{\"query\": \"x\", \"calls\": [{\"name\": \"lump\", \"arguments\": {}}]}\n", {"row 1", "lump"}},
      {"train.jsonl",
       "{\"query\": \"x\", \"calls\": [{\"name\": \"lamp\", \"arguments\": {\"on\": 3}}]}\n",
       {"row 1", "on"}},
      {"train.jsonl",
       "{\"query\": \"lamp on 20\", \"calls\": [{\"name\": \"lamp\", \"arguments\": {\"on\": true}}]}\n",
       {"train.jsonl", "test.jsonl", "1"}},
  };
  for (const Mistake& m : mistakes) {
    write_job();
    write(m.file, m.text);
    const Result r = thimble("tune " + job());
    EXPECT_EQ(r.status, 2) << m.file << ": " << m.text << "\n" << r.out << r.err;
    for (const char* part : m.said) EXPECT_NE(r.err.find(part), std::string::npos) << part << " is not in: " << r.err;
    EXPECT_FALSE(fs::exists(folder_ / "runs")) << "nothing half-written: " << m.text;
  }
}

TEST_F(Cli, AFullDiskLeavesNothingHalfWritten) {
  THIMBLE_REQUIRE_STORIES();
  // /dev/full takes nothing: its folder can't be written, and the file itself says that the disk is full.
  const Result r =
      thimble("run -m '" + test::stories_model().string() + "' -p 'Once' --logits /dev/full/logits.safetensors");
  EXPECT_EQ(r.status, 2) << r.err;
  EXPECT_NE(r.err.find("logits.safetensors"), std::string::npos) << r.err;
}

TEST_F(Cli, UnknownModelsSayHowToGetThem) {
  const Result r = thimble("run -m no-such-model -p x", "XDG_CACHE_HOME='" + folder_.string() + "'");
  EXPECT_EQ(r.status, 2);
  EXPECT_NE(r.err.find("pull"), std::string::npos) << r.err;
}

TEST_F(Cli, WrongOptionsShowTheHelpAndEndWithTwo) {
  EXPECT_EQ(thimble("").status, 2);
  EXPECT_EQ(thimble("run --no-such-flag").status, 2);
  EXPECT_EQ(thimble("--help").status, 0);
  EXPECT_EQ(thimble("--cpu-level nonsense info --cpu").status, 2);
}

TEST_F(Cli, OnlyARunsFolderIsGoneOnWith) {
  THIMBLE_REQUIRE_STORIES();
  write_job();
  for (const char* command : {"tune ", "make "}) {
    const Result r = thimble(command + job() + " --resume '" + (folder_ / "runs/none").string() + "'");
    EXPECT_EQ(r.status, 2);
    EXPECT_NE(r.err.find("is not a run's folder"), std::string::npos) << r.err;
  }
}

TEST_F(Cli, NoColoursWhereNobodyLooks) {
  const Result r = thimble("info --cpu");
  EXPECT_EQ(r.status, 0);
  EXPECT_EQ(r.out.find('\033'), std::string::npos);
}

TEST_F(Cli, BenchPrintsTokensPerSecondAsJson) {
  THIMBLE_REQUIRE_STORIES();
  const Result r = thimble("bench --json --prompts 32 --generate 8 --depths 64 --batch 1,3 --repeat 1 -m '" +
                           test::stories_model().string() + "'");
  ASSERT_EQ(r.status, 0) << r.err;
  EXPECT_EQ(r.err, "");
  const json out = json::parse(r.out);
  std::vector<std::string> tests;
  for (const json& line : out["results"]) {
    tests.push_back(line["test"]);
    for (const char* key : {"tokens", "tokens_per_second", "lowest", "highest", "share_of_limit"})
      EXPECT_GT(line[key], 0) << key << " of " << line;
    EXPECT_TRUE(line["limit"].is_string());
  }
  EXPECT_EQ(tests, (std::vector<std::string>{"prefill", "decode", "decode_at_depth", "batch", "batch"}));
  EXPECT_EQ(out["results"][2]["depth"], 64);
  EXPECT_EQ(out["results"][4]["sequences"], 3);
  for (const char* key : {"int8_gops", "bf16_gops", "f32_gops", "read_gbytes_per_second"})
    EXPECT_GT(out["limits"][key], 0) << key;
  EXPECT_GT(out["start_up"]["first_token_seconds"], 0);
  EXPECT_GT(out["start_up"]["prompt_tokens"], 50);
  EXPECT_GE(out["peak_memory_bytes"], out["loaded_memory_bytes"]);
  // The probe's 256 MB are not the model's.
  EXPECT_LT(out["peak_memory_bytes"], 200'000'000);
}

TEST_F(Cli, BenchMakesATableForPeopleAndOneForPages) {
  THIMBLE_REQUIRE_STORIES();
  const std::string command = "bench --prompts 16 --generate 0 --batch 2 --repeat 1 --no-start-up -m '" +
                              test::stories_model().string() + "' ";
  const Result text = thimble(command);
  ASSERT_EQ(text.status, 0) << text.err;
  for (const char* part : {"prefill of 16 tokens", "decode of 64 tokens, 2 sequences", "tokens/s", " % of ", "limits"})
    EXPECT_NE(text.out.find(part), std::string::npos) << part << "\n" << text.out;
  EXPECT_EQ(text.out.find("new process"), std::string::npos) << text.out;
  EXPECT_EQ(text.out.find('\033'), std::string::npos);
  const Result page = thimble(command + "--markdown");
  ASSERT_EQ(page.status, 0) << page.err;
  EXPECT_EQ(page.out.rfind("| what | tokens/s |", 0), 0u) << page.out;
  EXPECT_EQ(thimble(command + "--markdown --json").status, 2);
}

TEST_F(Cli, BenchRefusesWhatItCantMeasure) {
  THIMBLE_REQUIRE_STORIES();
  const std::string model = " -m '" + test::stories_model().string() + "'";
  const Result deep = thimble("bench --depths 100000" + model);
  EXPECT_EQ(deep.status, 2);
  EXPECT_NE(deep.err.find("context"), std::string::npos) << deep.err;
  EXPECT_EQ(thimble("bench --prompts 0 --generate 0" + model).status, 2);
  EXPECT_EQ(thimble("bench --generate 1" + model).status, 2);
}

TEST_F(Cli, InfoNamesTheKernelsOfEveryType) {
  const Result r = thimble("info --cpu --json --cpu-level plain");
  ASSERT_EQ(r.status, 0) << r.err;
  EXPECT_EQ(r.err, "");
  const json out = json::parse(r.out);
  EXPECT_EQ(out["used"], "plain");
  ASSERT_EQ(out["kernels"].size(), 11u);
  for (const json& kernel : out["kernels"]) {
    EXPECT_NE(kernel["packed"].get<std::string>().find("plain"), std::string::npos) << kernel;
    EXPECT_NE(kernel["training"].get<std::string>().find("plain"), std::string::npos) << kernel;
  }
  EXPECT_GT(out["cores"], 0);
  const Result text = thimble("info --cpu");
  EXPECT_NE(text.out.find("Q4_K"), std::string::npos) << text.out;
}

TEST_F(Cli, LevelsThatAreNoneAreRefusedByOptionAndByVariable) {
  const Result option = thimble("--cpu-level avx1024 info --cpu");
  EXPECT_EQ(option.status, 2);
  EXPECT_NE(option.err.find("--cpu-level avx1024"), std::string::npos) << option.err;
  const Result variable = thimble("info --cpu", "THIMBLE_CPU=avx1024");
  EXPECT_EQ(variable.status, 2);
  EXPECT_NE(variable.err.find("THIMBLE_CPU avx1024"), std::string::npos) << variable.err;
  EXPECT_EQ(json::parse(thimble("info --cpu --json", "THIMBLE_CPU=plain").out)["used"], "plain");
}

std::string quoted(const fs::path& path) { return std::string("'").append(path.string()).append("'"); }

// 60 lines of one story, each a little different.
std::string long_story() {
  std::string text;
  for (int i = 0; i < 60; ++i)
    text.append("Once upon a time, there was a little girl named Lily. She saw ")
        .append(std::to_string(i))
        .append(" birds fly.\n");
  return text;
}

TEST_F(Cli, PerplexityIsPrintedWithItsErrorAndBesideAReference) {
  THIMBLE_REQUIRE_STORIES();
  write("story.txt", long_story());
  const std::string text = quoted(folder_ / "story.txt");
  const std::string model = quoted(test::stories_model());
  const Result alone = thimble("perplexity -m " + model + " " + text + " --context 64 --chunks 5 --json");
  ASSERT_EQ(alone.status, 0) << alone.err;
  const json score = json::parse(alone.out);
  EXPECT_EQ(score["chunks"], 5);
  EXPECT_EQ(score["scored"], 5 * 31);
  EXPECT_GT(score["perplexity"]["value"], 1);
  EXPECT_GT(score["perplexity"]["error"], 0);
  const Result both =
      thimble("perplexity -m " + model + " " + text + " --context 64 --chunks 5 --json --reference " + model);
  ASSERT_EQ(both.status, 0) << both.err;
  const json compared = json::parse(both.out);
  EXPECT_EQ(compared["perplexity"], score["perplexity"]);
  EXPECT_EQ(compared["kl"]["value"], 0);
  EXPECT_EQ(compared["same_top"]["value"], 1);
  EXPECT_EQ(compared["ratio"]["value"], 1);
  const Result words = thimble("perplexity -m " + model + " " + text + " --context 64 --chunks 5");
  EXPECT_NE(words.out.find("perplexity"), std::string::npos);
  EXPECT_NE(words.out.find("5 of "), std::string::npos) << words.out;

  write("short.txt", "Once upon a time");
  const Result few = thimble("perplexity -m " + model + " " + quoted(folder_ / "short.txt"));
  EXPECT_EQ(few.status, 2);
  EXPECT_NE(few.err.find("two chunks of 512 need 1024"), std::string::npos) << few.err;
  EXPECT_EQ(thimble("perplexity -m " + model + " " + quoted(folder_ / "none.txt")).status, 2);
  write("empty.txt", "");
  EXPECT_EQ(thimble("perplexity -m " + model + " " + quoted(folder_ / "empty.txt")).status, 2);
}

TEST_F(Cli, QuantizeWritesAModelAndSaysWhatItCost) {
  THIMBLE_REQUIRE_STORIES();
  write("story.txt", long_story());
  const std::string model = quoted(test::stories_model());
  const auto file = [&](const char* name) { return quoted(folder_ / name); };
  const Result made = thimble("quantize " + model + " " + file("q8.gguf") + " --type q8_0 --check " +
                              file("story.txt") + " --context 64 --chunks 5 --json");
  ASSERT_EQ(made.status, 0) << made.err;
  const json out = json::parse(made.out);
  EXPECT_LT(out["bytes"], out["bytes_before"]);
  EXPECT_EQ(out["fallbacks"].size(), 5u) << "rows of 172 in five layers";
  EXPECT_EQ(out["fallbacks"][0]["type"], "f16");
  EXPECT_GT(out["check"]["kl"]["value"], 0);
  EXPECT_LT(out["check"]["kl"]["value"], 0.01);
  EXPECT_EQ(thimble("info " + file("q8.gguf")).status, 0);

  const Result words = thimble("quantize " + file("q8.gguf") + " " + file("q4.gguf") + " --type Q4_K --head q8_0");
  ASSERT_EQ(words.status, 0) << words.err;
  EXPECT_NE(words.out.find("Q5_0 instead of Q4_K"), std::string::npos) << words.out;
  EXPECT_NE(words.err.find("quantised already"), std::string::npos) << words.err;
}

TEST_F(Cli, QuantizeRefusesWhatWouldLoseSomething) {
  THIMBLE_REQUIRE_STORIES();
  const std::string model = quoted(test::stories_model());
  const auto file = [&](const char* name) { return quoted(folder_ / name); };
  ASSERT_EQ(thimble("quantize " + model + " " + file("a.gguf") + " --type f16").status, 0);
  const auto expect_refusal = [&](const std::string& arguments, const char* why) {
    const Result r = thimble("quantize " + arguments);
    EXPECT_EQ(r.status, 2) << arguments;
    EXPECT_NE((r.err + r.out).find(why), std::string::npos) << r.err;
  };
  expect_refusal(model + " " + file("a.gguf") + " --type q8_0", "is there already");
  EXPECT_EQ(thimble("quantize " + model + " " + file("a.gguf") + " --type q8_0 --force").status, 0);
  expect_refusal(file("a.gguf") + " " + file("a.gguf") + " --type q8_0 --force", "is the model that is read");
  fs::create_symlink(folder_ / "a.gguf", folder_ / "link.gguf");
  expect_refusal(file("a.gguf") + " " + file("link.gguf") + " --type q8_0 --force", "is the model that is read");
  expect_refusal(model + " " + file("b.bin") + " --type q8_0", "ends in .gguf");
  expect_refusal(model + " " + file("b.gguf") + " --type q3_k", "q3_k");
  expect_refusal(model + " " + file("b.gguf"), "--type");
  expect_refusal(model + " " + file("no-folder/b.gguf") + " --type q8_0", "create the folder first");
  write("short.txt", "Once upon a time");
  expect_refusal(model + " " + file("b.gguf") + " --type q8_0 --check " + file("short.txt"), "two chunks");
  fs::create_directory(folder_ / "folder.gguf");
  expect_refusal(model + " " + file("folder.gguf") + " --type q8_0 --force", "is a folder");
  EXPECT_FALSE(fs::exists(folder_ / "b.gguf"));
  for (const auto& item : fs::directory_iterator(folder_))
    EXPECT_EQ(item.path().string().find(".tmp"), std::string::npos) << item.path();
}

}  // namespace
}  // namespace thimble
