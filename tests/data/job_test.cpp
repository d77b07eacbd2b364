#include "data/job.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include "core/atomic_file.h"
#include "core/error.h"

namespace thimble {
namespace {

namespace fs = std::filesystem;

constexpr const char* kToml = R"(
name = "helpdesk"
base = "some.gguf"
tools_in_prompt = false
system = ""

[train]
rank = 8
learning_rate = 2e-3
epochs = 2
schedule = "linear"
targets = ["q_proj", "v_proj"]

[bars]
exact = 0.8
false_calls = 0.04

[large]
url = "http://localhost:8000/v1"
model = "big"
input_price = 1
)";

class JobFolder : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::path(testing::TempDir()) / ("job_" + std::to_string(::getpid()));
    fs::create_directories(folder_);
    write_file(folder_ / "tools.json",
               R"([{"name": "a", "parameters": {"type": "object", "properties": {"x": {"type": "string"}}}}])");
  }
  void TearDown() override { fs::remove_all(folder_); }
  Job load(std::string_view toml) {
    write_file(folder_ / "thimble.toml", toml);
    return load_job(folder_);
  }
  std::string error(std::string_view toml) {
    try {
      load(toml);
    } catch (const Error& e) {
      return e.what();
    }
    return "nothing was refused";
  }
  fs::path folder_;
};

TEST_F(JobFolder, APreferenceLossReadsItsOwnSettingsAndNoOthers) {
  EXPECT_FALSE(load("").preference);
  const Job job = load("[preference]\nloss = \"kto\"\nfile = \"p.jsonl\"\nbeta = 0.2\nundesirable_weight = 2\n");
  ASSERT_TRUE(job.preference);
  EXPECT_EQ(job.preference->loss, "kto");
  EXPECT_EQ(job.tuning_file().filename(), "p.jsonl");
  EXPECT_EQ(job.train_file().filename(), "train.jsonl");
  EXPECT_DOUBLE_EQ(job.preference->undesirable_weight, 2);
  for (const auto& [toml, said] : {std::pair{"loss = \"simpo\"", "preference.loss must be"},
                                   {"file = \"test.jsonl\"", "not test.jsonl"},
                                   {"file = \"../p.jsonl\"", "a file in the job's folder"},
                                   {"lambda = 0.1", "unknown key 'preference.lambda'"},
                                   {"loss = \"orpo\"\nbeta = 0.1", "unknown key 'preference.beta'"},
                                   {"loss = \"ipo\"\nlabel_smoothing = 0.1", "unknown key 'preference.label_smoothing'"},
                                   {"loss = \"kto\"\nsft_weight = 1", "unknown key 'preference.sft_weight'"},
                                   {"label_smoothing = 0.5", "below 0.5"}})
    EXPECT_THAT(error(std::string("[preference]\n") + toml), testing::HasSubstr(said)) << toml;
}

TEST_F(JobFolder, AllWeightsHaveTheirOwnRateAndNoKeysOfAdapters) {
  const Job job = load("[train]\nmethod = \"full\"\noptimizer = \"adamw8bit\"\nmaster = false\n");
  EXPECT_DOUBLE_EQ(job.train.learning_rate, 5e-5);
  EXPECT_FALSE(job.train.master);
  EXPECT_DOUBLE_EQ(load("[train]\nlearning_rate = 1e-4\nmethod = \"full\"\n").train.learning_rate, 1e-4);
  for (const char* key : {"rank = 8", "alpha = 8", "dropout = 0.1", "rslora = true", "targets = [\"q_proj\"]",
                          "layers = [1]", "lora_plus = 16"})
    EXPECT_THAT(error(std::string("[train]\nmethod = \"full\"\n") + key), testing::HasSubstr("toml:3: train.")) << key;
  EXPECT_THAT(error("[train]\nmaster = false\n"), testing::HasSubstr("train.master has no effect"));
  EXPECT_THAT(error("[train]\nmethod = \"full\"\nprecision = \"f32\"\nmaster = false\n"),
              testing::HasSubstr("train.master has no effect"));
}

TEST_F(JobFolder, LayersAreNumbersOrRanges) {
  using testing::ElementsAre;
  EXPECT_THAT(load("").train.layers, ElementsAre());
  EXPECT_THAT(load("[train]\nlayers = [3, 1, 3]").train.layers, ElementsAre(1, 3));
  EXPECT_THAT(load("[train]\nlayers = \"8-10\"").train.layers, ElementsAre(8, 9, 10));
  EXPECT_THAT(load("[train]\nlayers = \" 7, 0 - 2,4\"").train.layers, ElementsAre(0, 1, 2, 4, 7));
  for (const char* wrong : {"[]", "\"\"", "\"3-1\"", "\"1,\"", "\"1 2\"", "\"-1\"", "[-1]", "[\"1\"]", "3", "\"1-\"",
                            "\"a\"", "\"1,,2\"", "\"12345\""})
    EXPECT_THAT(error(std::string("[train]\nlayers = ") + wrong), testing::HasSubstr("train.layers must be a list"))
        << wrong;
}

TEST_F(JobFolder, OtherJobsAreMixedInByWeight) {
  const Job job = load("[[mix]]\njob = \"../a\"\nweight = 0.3\n[[mix]]\njob = \"../b\"\nweight = 2\n");
  ASSERT_EQ(job.mix.size(), 2u);
  EXPECT_EQ(job.mix[1].job, "../b");
  EXPECT_DOUBLE_EQ(job.mix[0].weight, 0.3);
  for (const auto& [toml, said] : {std::pair{"[mix]\njob = \"a\"\nweight = 1", "double brackets"},
                                   {"[[mix]]\njob = \"a\"", "needs job, a folder, and weight"},
                                   {"[[mix]]\njob = \"a\"\nweight = 0", "above 0"},
                                   {"[[mix]]\njob = \"a\"\nweight = 1\nseed = 2", "unknown key 'mix.seed'"},
                                   {"[preference]\n[[mix]]\njob = \"a\"\nweight = 1", "leave it out beside"}})
    EXPECT_THAT(error(toml), testing::HasSubstr(said)) << toml;
}

TEST_F(JobFolder, DistillationReadsItsOwnSettingsAndNoOthers) {
  const Job job = load("[distill]\nkind = \"jsd\"\nteacher = \"big\"\nbeta = 0.3\ntemperature = 2\nweight = 0.5\n");
  ASSERT_TRUE(job.distill);
  EXPECT_EQ(job.distill->teacher, "big");
  EXPECT_DOUBLE_EQ(job.distill->beta, 0.3);
  EXPECT_FALSE(job.distill->sequence());
  EXPECT_EQ(load("[distill]\nfrom = \"distill.jsonl\"\n").distill->from, "distill.jsonl");
  const Job own = load("[distill]\nteacher = \"t\"\non_policy = 0.5\nsample_temperature = 0\nmax_new_tokens = 40\n");
  EXPECT_DOUBLE_EQ(own.distill->on_policy, 0.5);
  EXPECT_DOUBLE_EQ(own.distill->sample_temperature, 0);
  EXPECT_EQ(own.distill->max_new_tokens, 40);
  for (const auto& [toml, said] :
       {std::pair{"kind = \"jsd\"", "needs a teacher"},
        {"teacher = \"t\"\nkind = \"kl\"", "distill.kind must be"},
        {"teacher = \"t\"\nbeta = 0.3", "unknown key 'distill.beta'"},
        {"from = \"d.jsonl\"\ntemperature = 2", "unknown key 'distill.temperature'"},
        {"from = \"test.jsonl\"", "not test.jsonl"},
        {"teacher = \"t\"\nkind = \"sequence\"\nweight = 0.5", "unknown key 'distill.weight'"},
        {"teacher = \"t\"\non_policy = 1.5", "a share between 0 and 1"},
        {"teacher = \"t\"\non_policy = 1\nsample_temperature = -1", "0 or more"},
        {"teacher = \"t\"\non_policy = 1\nmax_new_tokens = 0", "at least 1"},
        {"teacher = \"t\"\non_policy = 1\nweight = 0.5", "distill.weight has no effect with on_policy"},
        {"from = \"d.jsonl\"\non_policy = 1", "distill.from has no effect with on_policy"},
        {"teacher = \"t\"\nmax_new_tokens = 5", "distill.max_new_tokens has no effect without on_policy"},
        {"teacher = \"t\"\nkind = \"sequence\"\non_policy = 1", "distill.on_policy has no effect with kind"},
        {"teacher = \"t\"\non_policy = 1\n[train]\nmethod = \"full\"", "distill.on_policy needs an adapter"},
        {"teacher = \"t\"\n[preference]\nloss = \"dpo\"", "can't be learned from at once"}})
    EXPECT_THAT(error(std::string("[distill]\n") + toml), testing::HasSubstr(said)) << toml;
}

TEST_F(JobFolder, SettingsAreReadAndTheOthersKeepTheirDefaults) {
  const Job job = load(kToml);
  EXPECT_EQ(job.name, "helpdesk");
  EXPECT_FALSE(job.tools_in_prompt);
  EXPECT_EQ(job.system, "");
  EXPECT_EQ(job.train.rank, 8);
  EXPECT_DOUBLE_EQ(job.train.learning_rate, 2e-3);
  EXPECT_DOUBLE_EQ(job.train.epochs, 2);
  EXPECT_EQ(job.train.schedule, "linear");
  EXPECT_THAT(job.train.targets, testing::ElementsAre("q_proj", "v_proj"));
  EXPECT_EQ(job.train.batch_rows, 16);
  EXPECT_EQ(job.bars.exact, 0.8);
  EXPECT_FALSE(job.bars.name_accuracy);
  ASSERT_TRUE(job.large);
  EXPECT_DOUBLE_EQ(job.large->input_price, 1);
  EXPECT_EQ(job.max_new_tokens, 256);
  EXPECT_EQ(job.tools.size(), 1u);
  const Job plain = load("");
  EXPECT_EQ(plain.name, folder_.filename());
  EXPECT_FALSE(plain.system);
  EXPECT_FALSE(plain.large);
  EXPECT_TRUE(plain.tools_in_prompt);
}

TEST_F(JobFolder, MistakesAreNamedByFileLineAndKey) {
  const std::pair<const char*, const char*> cases[] = {
      {"nme = \"a\"", "thimble.toml:1: unknown key 'nme'; did you mean 'name'?"},
      {"[train]\nlearning_rat = 1",
       "thimble.toml:2: unknown key 'train.learning_rat'; did you mean 'train.learning_rate'?"},
      {"[trian]\nrank = 1", "did you mean 'train'?"},
      {"[train]\nrank = 0", "thimble.toml:2: train.rank must be between 1"},
      {"[train]\nrank = 1.5", "train.rank must be a whole number"},
      {"[train]\nrank = \"8\"", "train.rank must be a whole number"},
      {"[train]\nschedule = \"cosin\"", "train.schedule must be \"cosine\""},
      {"[train]\nlearning_rate = nan", "train.learning_rate must be"},
      {"[train]\nseed = -1", "train.seed must be"},
      {"[bars]\nexact = 80", "bars.exact must be a fraction"},
      {"name = 3", "name must be text"},
      {"tools_in_prompt = 1", "tools_in_prompt must be true or false"},
      {"train = 3", "train must be a table"},
      {"[large]\nmodel = \"x\"", "needs url and model"},
      {"name = 2020-01-01", "name must be text"},
      {"name = ", "thimble.toml:1:"},
  };
  for (const auto& [text, expected] : cases) EXPECT_THAT(error(text), testing::HasSubstr(expected)) << text;
  fs::remove(folder_ / "tools.json");
  EXPECT_THAT(error(""), testing::HasSubstr("tools.json"));
  EXPECT_THROW(load_job(folder_ / "nowhere"), Error);
}

TEST_F(JobFolder, TheManifestIsReadBackAsItWasWritten) {
  JobManifest manifest;
  manifest.job = "helpdesk";
  manifest.base = "b";
  manifest.base_fingerprint = "f";
  manifest.tools_in_prompt = false;
  manifest.system = "";
  manifest.chat_template = "{{ messages }}";
  manifest.tools = load(kToml).tools;
  manifest.call_threshold = 0.25;
  const std::string text = manifest_to_text(manifest);
  EXPECT_EQ(manifest_to_text(parse_manifest(text, "m")), text);
  EXPECT_EQ(parse_manifest(text, "m").system, "");
  EXPECT_EQ(parse_manifest(text, "m").call_threshold, 0.25);
  manifest.system.reset();
  EXPECT_FALSE(parse_manifest(manifest_to_text(manifest), "m").system);
  for (const char* broken : {"{\"jb\": 1}", "{\"job\": 1}", "{\"call_format\": \"x\"}", "[", "{\"tools\": [3]}",
                             "{\"call_threshold\": \"x\"}"}) {
    EXPECT_THROW(parse_manifest(broken, "m"), Error) << broken;
  }
}

TEST_F(JobFolder, TheNewestFinishedRunIsFound) {
  const Job job = load(kToml);
  EXPECT_FALSE(newest_run(folder_));
  const fs::path first = new_run(job), second = new_run(job), third = new_run(job);
  EXPECT_LT(first, second);
  EXPECT_LT(second, third);
  EXPECT_FALSE(newest_run(folder_));
  mark_finished(first);
  mark_finished(second);
  EXPECT_EQ(newest_run(folder_), second);
}

}  // namespace
}  // namespace thimble
