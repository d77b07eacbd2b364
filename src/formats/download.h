#pragma once

#include <filesystem>
#include <string>

#include "core/error.h"
#include "core/progress.h"

namespace thimble {

struct HttpNotFound : Error {  // the server has no such file
  using Error::Error;
};

struct DownloadOptions {
  std::string bearer_token;        // sent to the first host only, and only over TLS or to this machine
  std::string sha256;              // what the whole file must hash to; empty: not known
  int attempts = 4;                // after a connection that broke, each going on where the last one ended
  double retry_seconds = 1;        // pause before the second attempt, doubled each time
};

// Fetches an http(s) address into `target`. Bytes go to "<target>.part", with what the server said of the file
// (ETag, date, length) beside it, so that a later call goes on where this one was cut, unless the file has changed
// there. `target` appears whole or not at all. TLS certificates are checked, at most five redirects followed,
// never from https to http. Throws Error with the address and the reason; "not found" is HttpNotFound.
void download(const std::string& url, const std::filesystem::path& target, const DownloadOptions& options,
              const ProgressFn& progress);

// A small answer as text, at most 16 MB.
std::string download_text(const std::string& url, const DownloadOptions& options);

// One part of a path, as it must stand in an address.
std::string url_escaped(const std::string& text);

}  // namespace thimble
