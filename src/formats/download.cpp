#include "formats/download.h"

#include <curl/curl.h>
#include <fcntl.h>
#include <fmt/core.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "core/atomic_file.h"
#include "core/paths.h"
#include "core/sha256.h"

namespace thimble {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr long kMostRedirects = 5;

// What a server says about a file; enough to know whether it is still the same.
struct Answer {
  long status = 0;
  std::string etag, modified, linked_etag;
  int64_t length = -1;       // of this answer's body
  int64_t range_start = -1;  // Content-Range
  int64_t range_total = -1;
};

std::string trimmed_value(std::string_view line) {
  const size_t from = line.find_first_not_of(" \t", line.find(':') + 1);
  const size_t to = line.find_last_not_of(" \t\r\n");
  return from == std::string_view::npos || to < from ? "" : std::string(line.substr(from, to - from + 1));
}

bool is_header(std::string_view line, std::string_view name) {
  if (line.size() <= name.size() || line[name.size()] != ':') return false;
  for (size_t i = 0; i < name.size(); ++i)
    if (std::tolower(static_cast<unsigned char>(line[i])) != name[i]) return false;
  return true;
}

int64_t whole_number(const std::string& text) {
  if (text.empty() || text.size() > 18 || text.find_first_not_of("0123456789") != std::string::npos) return -1;
  return std::stoll(text);
}

void read_header_line(std::string_view line, Answer& answer) {
  if (line.starts_with("HTTP/")) {  // a new answer: after a redirect, say
    const std::string linked = answer.linked_etag;
    answer = Answer{};
    answer.linked_etag = linked;
    const size_t space = line.find(' ');
    if (space != std::string_view::npos)
      answer.status = std::strtol(std::string(line.substr(space)).c_str(), nullptr, 10);
  } else if (is_header(line, "etag")) {
    answer.etag = trimmed_value(line);
  } else if (is_header(line, "last-modified")) {
    answer.modified = trimmed_value(line);
  } else if (is_header(line, "x-linked-etag")) {  // the hub gives a file's sha256 here, before it redirects
    answer.linked_etag = trimmed_value(line);
  } else if (is_header(line, "content-length")) {
    answer.length = whole_number(trimmed_value(line));
  } else if (is_header(line, "content-range")) {  // bytes 100-199/200
    const std::string value = trimmed_value(line);
    const size_t dash = value.find('-'), slash = value.find('/');
    if (value.starts_with("bytes ") && dash != std::string::npos && slash != std::string::npos) {
      answer.range_start = whole_number(value.substr(6, dash - 6));
      answer.range_total = whole_number(value.substr(slash + 1));
    }
  }
}

std::string without_query(const std::string& url) { return url.substr(0, url.find('?')); }  // may hold a signature

bool may_carry_token(const std::string& url) {
  return url.starts_with("https://") || url.starts_with("http://127.0.0.1") || url.starts_with("http://localhost");
}

// One request. on_body gets the pieces of a 2xx answer and returns false to stop.
struct Request {
  std::string url;
  DownloadOptions options;
  std::vector<std::string> headers;
  std::function<bool(const Answer&, const char*, size_t)> on_body;

  Answer answer;
  char reason[CURL_ERROR_SIZE] = "";

  CURLcode perform() {
    static const CURLcode ready = curl_global_init(CURL_GLOBAL_DEFAULT);
    if (ready != CURLE_OK) return ready;
    const std::unique_ptr<CURL, void (*)(CURL*)> curl(curl_easy_init(), curl_easy_cleanup);
    if (!curl) return CURLE_FAILED_INIT;
    curl_slist* list = nullptr;
    if (!options.bearer_token.empty() && may_carry_token(url))
      list = curl_slist_append(list, ("Authorization: Bearer " + options.bearer_token).c_str());
    for (const std::string& header : headers) list = curl_slist_append(list, header.c_str());
    const std::unique_ptr<curl_slist, void (*)(curl_slist*)> owned(list, curl_slist_free_all);
    CURL* c = curl.get();
    curl_easy_setopt(c, CURLOPT_URL, url.c_str());
    curl_easy_setopt(c, CURLOPT_HTTPHEADER, list);
    curl_easy_setopt(c, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(c, CURLOPT_REDIR_PROTOCOLS_STR, url.starts_with("https://") ? "https" : "http,https");
    curl_easy_setopt(c, CURLOPT_FOLLOWLOCATION, 1L);
    curl_easy_setopt(c, CURLOPT_MAXREDIRS, kMostRedirects);
    curl_easy_setopt(c, CURLOPT_SSL_VERIFYPEER, 1L);
    curl_easy_setopt(c, CURLOPT_SSL_VERIFYHOST, 2L);
    curl_easy_setopt(c, CURLOPT_CONNECTTIMEOUT, 30L);
    curl_easy_setopt(c, CURLOPT_LOW_SPEED_LIMIT, 1L);
    curl_easy_setopt(c, CURLOPT_LOW_SPEED_TIME, 60L);
    curl_easy_setopt(c, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(c, CURLOPT_USERAGENT, "thimble/0.1");
    curl_easy_setopt(c, CURLOPT_ERRORBUFFER, reason);
    curl_easy_setopt(c, CURLOPT_HEADERDATA, this);
    curl_easy_setopt(
        c, CURLOPT_HEADERFUNCTION, +[](char* data, size_t size, size_t count, void* self) -> size_t {
          read_header_line({data, size * count}, static_cast<Request*>(self)->answer);
          return size * count;
        });
    curl_easy_setopt(c, CURLOPT_WRITEDATA, this);
    curl_easy_setopt(
        c, CURLOPT_WRITEFUNCTION, +[](char* data, size_t size, size_t count, void* self) -> size_t {
          auto* request = static_cast<Request*>(self);
          const bool wanted = request->answer.status / 100 == 2;
          if (wanted && !request->on_body(request->answer, data, size * count)) return 0;
          return size * count;
        });
    const CURLcode result = curl_easy_perform(c);
    curl_easy_getinfo(c, CURLINFO_RESPONSE_CODE, &answer.status);
    return result;
  }

  [[noreturn]] void fail(CURLcode code) const {
    const std::string why = reason[0] != '\0' ? reason : curl_easy_strerror(code);
    throw Error(fmt::format("{}: can't be fetched ({}); check the address and the connection and run the command again",
                            without_query(url), why));
  }
  [[noreturn]] void fail_status() const {
    const std::string shown = without_query(url);
    if (answer.status == 404 || answer.status == 410)
      throw HttpNotFound(fmt::format("{}: is not there (HTTP status {}); check the address", shown, answer.status));
    if (answer.status == 401 || answer.status == 403)
      throw Error(
          fmt::format("{}: access is refused (HTTP status {}); for a gated or private model, accept its terms "
                      "and set HF_TOKEN",
                      shown, answer.status));
    throw Error(fmt::format("{}: the server answers with HTTP status {}; try again later", shown, answer.status));
  }
};

bool is_transient(CURLcode code) {
  return code == CURLE_PARTIAL_FILE || code == CURLE_RECV_ERROR || code == CURLE_SEND_ERROR ||
         code == CURLE_OPERATION_TIMEDOUT || code == CURLE_GOT_NOTHING || code == CURLE_COULDNT_CONNECT ||
         code == CURLE_HTTP2 || code == CURLE_HTTP2_STREAM;
}

// The bytes that have come so far, locked against a second download of the same file.
class Part {
 public:
  explicit Part(const fs::path& target) : path_(target.string() + ".part"), notes_path_(path_.string() + ".json") {
    fd_ = ::open(path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (fd_ < 0) fail("can't be written");
    if (::flock(fd_, LOCK_EX | LOCK_NB) != 0) {
      ::close(fd_);
      throw Error(fmt::format("{}: is being downloaded by another process; wait for it to end", target.string()));
    }
    size_ = ::lseek(fd_, 0, SEEK_END);
    if (path_exists(notes_path_)) {
      const json notes = json::parse(read_file(notes_path_), nullptr, false);
      if (notes.is_object()) {
        url_ = notes.value("url", "");
        answer_.etag = notes.value("etag", "");
        answer_.modified = notes.value("modified", "");
        answer_.linked_etag = notes.value("linked_etag", "");
        total_ = notes.value("total", int64_t{-1});
      }
    }
  }
  ~Part() {
    if (size_ == 0 && !finished_) remove();
    ::close(fd_);
  }
  Part(const Part&) = delete;
  Part& operator=(const Part&) = delete;

  int64_t size() const { return size_; }
  int64_t total() const { return total_; }
  const fs::path& path() const { return path_; }
  const Answer& answer() const { return answer_; }

  // Whether going on is possible: the same address, something there, and a way to tell if the file has changed.
  bool resumable(const std::string& url) const {
    return size_ > 0 && url_ == url && (!validator().empty() || total_ > 0) && (total_ < 0 || size_ <= total_);
  }
  std::string validator() const {  // for If-Range; weak ETags don't serve
    return !answer_.etag.empty() && !answer_.etag.starts_with("W/") ? answer_.etag : answer_.modified;
  }
  void restart(const std::string& url, const Answer& answer) {
    if (::ftruncate(fd_, 0) != 0 || ::lseek(fd_, 0, SEEK_SET) != 0) fail("can't be written");
    size_ = 0;
    url_ = url;
    answer_ = answer;
    total_ = answer.length;
    if (total_ > 0) {
      std::error_code unknown;
      const auto space = fs::space(path_.parent_path(), unknown);
      if (!unknown && space.available < static_cast<uintmax_t>(total_)) {
        remove();
        throw Error(
            fmt::format("{}: needs {:.0f} MB, but only {:.0f} MB are free; free some space and run the command "
                        "again",
                        path_.string(), static_cast<double>(total_) / 1e6, static_cast<double>(space.available) / 1e6));
      }
    }
    const json notes = {{"url", url_},
                        {"etag", answer.etag},
                        {"modified", answer.modified},
                        {"linked_etag", answer.linked_etag},
                        {"total", total_}};
    write_file(notes_path_, notes.dump());
  }
  void append(const char* data, size_t bytes) {
    while (bytes > 0) {
      const ssize_t written = ::write(fd_, data, bytes);
      if (written < 0 && errno == EINTR) continue;
      if (written <= 0) {
        const bool full = errno == ENOSPC;
        const std::string reason = std::strerror(errno);
        if (full) remove();
        throw Error(
            fmt::format("{}: writing failed ({}); free some space and run the command again", path_.string(), reason));
      }
      data += written;
      bytes -= static_cast<size_t>(written);
      size_ += written;
    }
  }
  void remove() {
    std::error_code ignored;
    fs::remove(path_, ignored);
    fs::remove(notes_path_, ignored);
  }
  void finish(const fs::path& target) {
    if (::fsync(fd_) != 0 || ::rename(path_.c_str(), target.c_str()) != 0) fail("can't be put in place");
    finished_ = true;
    std::error_code ignored;
    fs::remove(notes_path_, ignored);
  }

 private:
  [[noreturn]] void fail(const char* what) const {
    throw Error(fmt::format("{}: {} ({}); check the folder's permissions", path_.string(), what, std::strerror(errno)));
  }

  fs::path path_, notes_path_;
  int fd_ = -1;
  bool finished_ = false;
  int64_t size_ = 0;
  int64_t total_ = -1;
  std::string url_;
  Answer answer_;
};

bool is_sha256(std::string_view text) {
  return text.size() == 64 && text.find_first_not_of("0123456789abcdef") == std::string_view::npos;
}

// One attempt; true when the file is whole, false when the connection broke but another attempt may go on.
bool attempt(const std::string& url, Part& part, const DownloadOptions& options, const ProgressFn& progress,
             const std::string& stage, bool last) {
  const bool resuming = part.resumable(url);
  Request request;
  request.url = url;
  request.options = options;
  if (resuming) {
    request.headers.push_back(fmt::format("Range: bytes={}-", part.size()));
    if (!part.validator().empty()) request.headers.push_back("If-Range: " + part.validator());
  }
  std::exception_ptr failure;  // none may pass through libcurl
  bool begun = false, changed = false;
  const auto begin = [&](const Answer& answer) {
    begun = true;
    const bool goes_on = resuming && answer.status == 206 && answer.range_start == part.size() &&
                         (part.total() < 0 || answer.range_total < 0 || answer.range_total == part.total());
    changed = answer.status == 206 && !goes_on;  // another length, or not from where we are: anew
    if (changed) {
      part.restart("", Answer{});
    } else if (!goes_on) {
      part.restart(url, answer);
    }
  };
  request.on_body = [&](const Answer& answer, const char* data, size_t bytes) {
    try {
      if (!begun) begin(answer);
      if (changed) return false;
      part.append(data, bytes);
      if (progress)
        progress({stage, static_cast<double>(part.size()), static_cast<double>(std::max<int64_t>(part.total(), 0)),
                  "bytes", ""});
      return true;
    } catch (...) {
      failure = std::current_exception();
      return false;
    }
  };
  const CURLcode code = request.perform();
  if (failure) std::rethrow_exception(failure);
  if (request.answer.status == 416 && resuming) {  // nothing after what is here: whole already, or changed
    if (part.total() == part.size()) return true;
    part.restart("", Answer{});
    if (!last) return false;
  }
  if (changed) {
    if (!last) return false;
    throw Error(fmt::format("{}: has changed on the server since its first part was fetched; run the command again",
                            without_query(url)));
  }
  if (code != CURLE_OK) {
    if (!is_transient(code) || last) request.fail(code);
    return false;
  }
  if (request.answer.status / 100 == 5 && !last) return false;
  if (request.answer.status != 200 && request.answer.status != 206) request.fail_status();
  if (!begun) begin(request.answer);  // an empty file
  if (part.total() >= 0 && part.size() != part.total()) {
    if (last)
      throw Error(fmt::format("{}: only {} of {} bytes came; run the command again to fetch the rest",
                              without_query(url), part.size(), part.total()));
    return false;
  }
  return true;
}

}  // namespace

void download(const std::string& url, const fs::path& target, const DownloadOptions& options,
              const ProgressFn& progress) {
  Part part(target);
  const std::string stage = "fetching " + target.filename().string();
  double pause = options.retry_seconds;
  for (int i = 1; !attempt(url, part, options, progress, stage, i >= options.attempts); ++i) {
    std::this_thread::sleep_for(std::chrono::duration<double>(pause));
    pause *= 2;
  }
  std::string expected = options.sha256;
  std::string linked = part.answer().linked_etag;
  std::erase(linked, '"');
  if (expected.empty() && is_sha256(linked)) expected = linked;
  if (!expected.empty()) {
    if (const std::string actual = sha256_file(part.path()); actual != expected) {
      part.remove();
      throw Error(
          fmt::format("{}: what came has sha256 {} where {} was expected; it is damaged or was replaced, run the "
                      "command again or find another source",
                      without_query(url), actual, expected));
    }
  }
  part.finish(target);
}

std::string download_text(const std::string& url, const DownloadOptions& options) {
  constexpr size_t kMost = size_t{16} << 20;
  Request request;
  request.url = url;
  request.options = options;
  std::string text;
  request.on_body = [&](const Answer&, const char* data, size_t bytes) {
    text.append(data, bytes);
    return text.size() <= kMost;
  };
  const CURLcode code = request.perform();
  if (code != CURLE_OK) request.fail(code);
  if (request.answer.status != 200) request.fail_status();
  return text;
}

std::string url_escaped(const std::string& text) {
  const std::unique_ptr<char, void (*)(void*)> escaped(
      curl_easy_escape(nullptr, text.c_str(), static_cast<int>(text.size())), curl_free);
  return escaped ? std::string(escaped.get()) : std::string();
}

}  // namespace thimble
