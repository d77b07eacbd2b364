// Thirty kinds of bad input to training, and some: each is refused or survived, by row or file, with a reason.

#include <gmock/gmock.h>

#include <cstring>
#include <functional>
#include <limits>
#include <nlohmann/json.hpp>
#include <vector>

#include "core/folder_lock.h"
#include "program.h"

namespace thimble {
namespace {

namespace fs = std::filesystem;
using test::Result;
using test::thimble;
using testing::HasSubstr;

class Faults : public test::JobTest {
 protected:
  static constexpr const char* kOne = "rank = 4\nlearning_rate = 0.01\nepochs = 1\nbatch_rows = 8\ndev_share = 0.1\n"
                                      "evaluations = 1\n";
  std::string rows() const { return test::text_of(folder_ / "train.jsonl"); }
  void add_row(const std::string& line) const { write("train.jsonl", rows() + line + "\n"); }

  // A trained run's adapter, in a folder of its own.
  fs::path adapter() {
    write_job("", "", kOne);
    EXPECT_EQ(thimble("tune " + job()).status, 0);
    fs::rename(run() / "adapter", folder_ / "adapter");
    return folder_ / "adapter";
  }
  // The base model with one float of a tensor changed.
  fs::path damaged_base(const std::string& tensor) const {
    const fs::path base = folder_ / "base";
    fs::copy(test::stories_model(), base);
    std::string bytes = test::text_of(base / "model.safetensors");
    uint64_t header = 0;
    std::memcpy(&header, bytes.data(), 8);
    const auto entries = nlohmann::json::parse(bytes.substr(8, header));
    const float broken = std::numeric_limits<float>::quiet_NaN();
    std::memcpy(bytes.data() + 8 + header + entries[tensor]["data_offsets"][0].get<size_t>(), &broken, 4);
    std::ofstream(base / "model.safetensors", std::ios::binary) << bytes;
    return base;
  }
};

struct RowFault {
  const char* what;
  const char* line;     // added as row 25
  const char* said;     // beside "row 25"
};

TEST_F(Faults, OfARowAreRefusedByItsNumber) {
  THIMBLE_REQUIRE_STORIES();
  const std::string too_long = R"({"query":")" + std::string(3000, 'x') + R"(","calls":[],"answer":"no"})";
  const std::vector<RowFault> faults = {
      {"an empty answer", R"({"query":"a","calls":[],"answer":""})", "train on nothing"},
      {"an answer of blanks", R"({"query":"a","calls":[],"answer":" \n\t"})", "train on nothing"},
      {"calls and an answer", R"({"query":"a","calls":[{"name":"lamp","arguments":{"on":true}}],"answer":"yes"})",
       "one or the other"},
      {"no calls key", R"({"query":"a","answer":"x"})", "\"calls\" is missing"},
      {"an unknown key", R"({"query":"a","calls":[],"anwser":"x"})", "unknown key \"anwser\""},
      {"an unknown tool", R"({"query":"a","calls":[{"name":"lump","arguments":{}}]})", "no such tool"},
      {"an argument of another type", R"({"query":"a","calls":[{"name":"lamp","arguments":{"on":"yes"}}]})", "schema"},
      {"an argument that is not listed", R"({"query":"a","calls":[{"name":"lamp","arguments":{"on":true,"at":1}}]})",
       "at"},
      {"a lacking argument", R"({"query":"a","calls":[{"name":"lamp","arguments":{}}]})", "on"},
      {"missing beside calls",
       R"({"query":"a","calls":[{"name":"lamp","arguments":{"on":true}}],"missing":"on"})", "missing"},
      {"broken UTF-8", "{\"query\":\"a\xff\",\"calls\":[],\"answer\":\"x\"}", "UTF-8"},
      {"half a surrogate pair", R"({"query":"a\ud83d","calls":[],"answer":"x"})", "surrogate"},
      {"broken JSON", R"({"query":"a","calls":[)", "JSON"},
      {"two objects", R"({"query":"a","calls":[],"answer":"x"} {})", "JSON"},
      {"a key twice", R"({"query":"a","query":"b","calls":[],"answer":"x"})", "query"},
      {"a number that is none", R"({"query":"a","calls":[{"name":"lamp","arguments":{"on":NaN}}]})", "JSON"},
      {"a list instead of an object", "[1]", "object"},
      {"two roles in a row",
       R"({"messages":[{"role":"user","content":"a"},{"role":"user","content":"b"})"
       R"(,{"role":"assistant","content":"c"}]})",
       "both of the user"},
      {"an answer to nobody",
       R"({"messages":[{"role":"user","content":"a"},{"role":"assistant","content":"b"})"
       R"(,{"role":"assistant","content":"c"}]})",
       "the message before the answer"},
      {"no answer", R"({"messages":[{"role":"user","content":"a"}]})", "the last message must be the assistant's"},
      {"a tool that nobody called",
       R"({"messages":[{"role":"user","content":"a"},{"role":"tool","content":"b"})"
       R"(,{"role":"assistant","content":"c"}]})",
       "calls none"},
      {"a system message in the middle",
       R"({"messages":[{"role":"user","content":"a"},{"role":"system","content":"b"})"
       R"(,{"role":"assistant","content":"c"}]})",
       "must be the first"},
      {"a role of its own", R"({"messages":[{"role":"robot","content":"a"},{"role":"assistant","content":"c"}]})",
       "unknown role"},
      {"tools that can't be held to",
       R"({"messages":[{"role":"user","content":"a"},{"role":"assistant","content":"c"}])"
       R"(,"tools":[{"type":"function","function":{"name":"x","parameters":{"type":"object","properties":{},"not":{}}}}]})",
       "not"},
      {"a row that is also tested", R"({"query":"LAMP on, 20!","calls":[{"name":"lamp","arguments":{"on":true}}]})",
       "also trained on"},
      {"a row over max_tokens", too_long.c_str(), "train.max_tokens"},
  };
  for (const RowFault& fault : faults) {
    SCOPED_TRACE(fault.what);
    write_job();
    add_row(fault.line);
    const Result r = thimble("tune " + job());
    EXPECT_EQ(r.status, 2) << r.out << r.err;
    EXPECT_THAT(r.err, HasSubstr("row 25"));
    EXPECT_THAT(r.err, HasSubstr(fault.said));
    EXPECT_FALSE(fs::exists(folder_ / "runs"));
  }
}

TEST_F(Faults, OfLengthAreRefusedDroppedOrCutAsTheJobSays) {
  THIMBLE_REQUIRE_STORIES();
  const std::string filler(200, 'y');
  const std::string turns = R"({"messages":[{"role":"user","content":")" + filler +
                            R"("},{"role":"assistant","content":"first"},{"role":"user","content":"lamp on"},)"
                            R"({"role":"assistant","content":"it is"}]})";
  const std::string one = R"({"query":")" + filler + R"(","calls":[],"answer":"no"})";
  const auto tune = [&](const std::string& rule, const std::string& row) {
    write_job("", "", std::string(kOne) + "max_tokens = 150\n" + rule);
    add_row(row);
    fs::remove_all(folder_ / "runs");
    return thimble("tune " + job());
  };
  const Result refused = tune("", turns);
  EXPECT_EQ(refused.status, 2);
  EXPECT_THAT(refused.err, HasSubstr("row 25 has "));
  EXPECT_THAT(refused.err, HasSubstr("\"drop\" or \"cut\""));
  const Result dropped = tune("too_long = \"drop\"\n", turns);
  EXPECT_EQ(dropped.status, 0) << dropped.err;
  EXPECT_THAT(dropped.out, HasSubstr("1 rows were longer than 150 tokens and were dropped"));
  const Result cut = tune("too_long = \"cut\"\n", turns);
  EXPECT_EQ(cut.status, 0) << cut.err;
  EXPECT_THAT(cut.out, testing::ContainsRegex("note: 1 rows were longer than 150 tokens: [0-9]+ tokens of their "
                                              "earlier turns were cut, none of them trained"));
  const Result whole = tune("too_long = \"cut\"\n", one);
  EXPECT_EQ(whole.status, 2);
  EXPECT_THAT(whole.err, HasSubstr("row 25"));
  EXPECT_THAT(whole.err, HasSubstr("can't be cut"));

  // Over what the model reads, whatever max_tokens says.
  write_job("", "", std::string(kOne) + "max_tokens = 100000\n");
  add_row(R"({"query":")" + std::string(3000, 'x') + R"(","calls":[],"answer":"no"})");
  const Result context = thimble("tune " + job());
  EXPECT_EQ(context.status, 2);
  EXPECT_THAT(context.err, HasSubstr("row 25: "));
  EXPECT_THAT(context.err, HasSubstr("the model reads at most 512"));
}

TEST_F(Faults, ThatAreOddButRightAreSurvived) {
  THIMBLE_REQUIRE_STORIES();
  write_job("", "", kOne);
  // Tools that change between rows, a forged end of turn, a zero byte, a blank line, Windows line ends, a row twice.
  add_row(R"({"messages":[{"role":"user","content":"ring"},{"role":"assistant","content":null,"tool_calls":)"
          R"([{"type":"function","function":{"name":"bell","arguments":"{}"}}]}],"tools":[{"type":"function",)"
          R"("function":{"name":"bell","parameters":{"type":"object","properties":{}}}}]})");
  add_row(R"({"query":"</s><|im_end|> lamp","calls":[],"answer":"Which?"})");
  add_row(R"({"query":"a\u0000b","calls":[],"answer":"What?"})");
  add_row("");
  add_row(std::string(R"({"query":"hm","calls":[],"answer":"Yes?"})") + "\r");
  add_row(R"({"query":"lamp on 0","calls":[{"name":"lamp","arguments":{"on":true}}]})");
  const Result r = thimble("tune " + job());
  EXPECT_EQ(r.status, 0) << r.err;
  EXPECT_THAT(r.out, HasSubstr("1 rows (the first is row 25) have tools of their own, which the model can't see"));
  EXPECT_THAT(r.out, testing::ContainsRegex("2[0-9] rows to train on"));
}

TEST_F(Faults, OfFilesAreRefusedByName) {
  THIMBLE_REQUIRE_STORIES();
  struct FileFault {
    const char* file;
    std::string text;
    const char* said;
  };
  const std::vector<FileFault> faults = {
      {"train.jsonl", "", "train.jsonl"},
      {"train.jsonl", "\n \n", "no rows"},
      {"train.jsonl", "\xef\xbb\xbf{}", "byte order mark"},
      {"tools.json", "[]", "no such tool"},
      {"tools.json", "[{\"type\":\"function\",\"function\":{\"name\":\"lamp\",\"parameters\":{\"type\":\"object\","
       "\"properties\":{},\"if\":{}}}}]",
       "if"},
      {"thimble.toml", "[train]\nrank = 0\n", "train.rank must be between 1 and 1024"},
      {"thimble.toml", "[train]\nlearning_rate = nan\n", "train.learning_rate must be between 0 and 1"},
      {"thimble.toml", "[train]\ntoo_long = \"trim\"\n", "\"cut\""},
      {"thimble.toml", "[train]\ntargets = [\"lm_head\"]\n", "output head"},
      {"thimble.toml", "base = \"/nowhere/model.gguf\"\n", "/nowhere/model.gguf"},
  };
  for (const FileFault& fault : faults) {
    SCOPED_TRACE(fault.text);
    write_job();
    std::string text = fault.text;
    if (std::string_view(fault.file) == "thimble.toml" && text.find("base") == std::string::npos)
      text = "base = \"" + test::stories_model().string() + "\"\ntools_in_prompt = false\n" + text;
    write(fault.file, text);
    const Result r = thimble("tune " + job());
    EXPECT_EQ(r.status, 2) << r.out;
    EXPECT_THAT(r.err, HasSubstr(fault.said));
  }
  write_job();
  write("runs", "a file where the folder should be");
  const Result r = thimble("tune " + job());
  EXPECT_EQ(r.status, 2) << r.err;
  EXPECT_THAT(r.err, HasSubstr("runs"));
}

TEST_F(Faults, OfTheBaseModelAreRefusedByTensor) {
  THIMBLE_REQUIRE_STORIES();
  write_job();
  const fs::path base = damaged_base("model.layers.2.self_attn.v_proj.weight");
  const Result nan = thimble("tune " + job() + " -m '" + base.string() + "'");
  EXPECT_EQ(nan.status, 2);
  EXPECT_THAT(nan.err, HasSubstr("tensor 'model.layers.2.self_attn.v_proj.weight', row 0, holds a value that is not"));
  fs::resize_file(base / "model.safetensors", fs::file_size(base / "model.safetensors") - 4);
  const Result cut = thimble("tune " + job() + " -m '" + base.string() + "'");
  EXPECT_EQ(cut.status, 2);
  EXPECT_THAT(cut.err, HasSubstr("model.safetensors"));
}

TEST_F(Faults, OfAnAdapterAreRefusedByName) {
  THIMBLE_REQUIRE_STORIES();
  const fs::path good = adapter();
  const auto eval = [&](const std::function<void(const fs::path&)>& damage, const std::string& more = "") {
    const fs::path copy = folder_ / "copy";
    fs::remove_all(copy);
    fs::copy(good, copy);
    damage(copy);
    const Result r = thimble("eval " + job() + " --limit 1 --adapter '" + copy.string() + "'" + more);
    EXPECT_EQ(r.status, 2) << r.out;
    return r.err;
  };
  const auto change = [](const fs::path& file, const std::string& from, const std::string& to) {
    std::string text = test::text_of(file);
    ASSERT_NE(text.find(from), std::string::npos) << from;
    text.replace(text.find(from), from.size(), to);
    std::ofstream(file, std::ios::binary) << text;
  };
  EXPECT_THAT(eval([&](const fs::path& a) {
                const std::string manifest = test::text_of(a / "thimble_job.json");
                const size_t at = manifest.find("\"base_fingerprint\": \"") + 21;
                change(a / "thimble_job.json", manifest.substr(at, 4), "0123");
              }),
              HasSubstr("was trained on another base model"));
  EXPECT_THAT(eval([&](const fs::path& a) {
                fs::remove(a / "thimble_job.json");
                change(a / "adapter_model.safetensors", "[4,172]", "[43,16]");
              }),
              HasSubstr("has rank 43"));
  EXPECT_THAT(eval([&](const fs::path& a) {
                fs::remove(a / "thimble_job.json");
                std::string text = test::text_of(a / "adapter_model.safetensors");
                for (size_t at = 0; (at = text.find("layers.0.mlp", at)) != std::string::npos;) text[at + 7] = '9';
                std::ofstream(a / "adapter_model.safetensors", std::ios::binary) << text;
              }),
              HasSubstr("layers.9.mlp"));
  EXPECT_THAT(eval([&](const fs::path& a) {
                std::string bytes = test::text_of(a / "adapter_model.safetensors");
                const float broken = std::numeric_limits<float>::infinity();
                std::memcpy(bytes.data() + bytes.size() - 4, &broken, 4);
                std::ofstream(a / "adapter_model.safetensors", std::ios::binary) << bytes;
              }),
              HasSubstr("not finite"));
  EXPECT_THAT(eval([&](const fs::path& a) { fs::remove(a / "adapter_config.json"); }),
              HasSubstr("adapter_config.json"));
  EXPECT_THAT(eval([&](const fs::path& a) { fs::resize_file(a / "adapter_model.safetensors", 1000); }),
              HasSubstr("adapter_model.safetensors"));
}

TEST_F(Faults, OfARunsFolderAreRefusedAndHurtNothing) {
  THIMBLE_REQUIRE_STORIES();
  // Room for neither adapter (about 170 KB) nor checkpoint.
  write_job("", "", std::string(kOne) + "checkpoint_minutes = 0\n");
  const Result full = thimble("tune " + job(), "trap '' XFSZ; ulimit -f 60;");
  EXPECT_EQ(full.status, 2) << full.out;
  EXPECT_THAT(full.err, HasSubstr("adapter_model.safetensors: writing failed (File too large)"));
  const fs::path left = run();
  EXPECT_FALSE(fs::exists(left / "finished"));
  EXPECT_FALSE(fs::exists(left / "adapter/adapter_config.json"));
  const std::string resume = "tune " + job() + " --resume '" + left.string() + "'";
  {
    const FolderLock held(left);
    const Result locked = thimble("tune " + job());
    EXPECT_EQ(locked.status, 2);
    EXPECT_THAT(locked.err, HasSubstr("process " + std::to_string(::getpid()) + " is at work there"));
  }
  const Result mended = thimble("tune " + job());  // with room again, in the same folder
  ASSERT_EQ(mended.status, 0) << mended.err;
  ASSERT_TRUE(fs::exists(left / "finished"));
  EXPECT_EQ(thimble(resume).status, 2) << "it is finished";

  for (const std::string& text : {std::string("{}"), std::string(8, '\0') + "{}", std::string()}) {
    fs::remove(left / "finished");
    std::ofstream(left / "checkpoint.safetensors", std::ios::binary) << text;
    for (const std::string& command : {resume, "tune " + job()}) {
      const Result r = thimble(command);
      EXPECT_EQ(r.status, 2) << r.out;
      EXPECT_THAT(r.err, HasSubstr("checkpoint.safetensors"));
    }
  }
  EXPECT_EQ(thimble("tune --fresh " + job()).status, 0);
  EXPECT_EQ(thimble("tune " + job() + " --fresh --resume '" + left.string() + "'").status, 2);
}

TEST_F(Faults, ARateThatDivergesIsStoppedWithStepAndRows) {
  THIMBLE_REQUIRE_STORIES();
  write_job("", "",
            "rank = 8\nlearning_rate = 0.99\nwarmup = 0\nepochs = 12\nbatch_rows = 4\ndev_share = 0.1\nclip = 1e9\n"
            "alpha = 1024\nschedule = \"constant\"\n");
  const Result r = thimble("tune " + job());
  EXPECT_EQ(r.status, 2);
  EXPECT_THAT(r.err, testing::ContainsRegex("(has exploded|is not a finite number).* at step [0-9]+ .rows [0-9, ]+."));
}

}  // namespace
}  // namespace thimble
